// Package stub holds the record by which boot/image tells a kernel about its own image.
package stub

import "dinos/boot/record"

// Record is overwritten in the file by boot/image. It must stay initialised like this: see package record.
var Record = record.Info{Magic: record.Magic, Version: record.Version}
