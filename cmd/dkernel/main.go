// Command dkernel is the image of package dkernel.
package main

import (
	"dinos/dkernel"
	"dinos/kernel/machine"
)

func main() { machine.Main("dkernel", dkernel.Run) }
