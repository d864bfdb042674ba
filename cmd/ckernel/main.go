// Command ckernel is the image of package ckernel.
package main

import (
	"dinos/ckernel"
	"dinos/kernel/machine"
)

func main() { machine.Main("ckernel", ckernel.Run) }
