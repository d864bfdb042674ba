// Command ktest is the test image: a kernel that runs the tests of package ktest and ends.
package main

import (
	"dinos/kernel/ktest"
	"dinos/kernel/machine"
)

func main() { machine.Main("ktest", ktest.Main) }
