package main

import (
	"errors"

	"dinos/qemu/vm"
)

// Exit statuses of the process.
const (
	exitGuest = 1 // a kernel failed
	exitOther = 2 // wrong usage, or the host
)

// exitStatus is the status for an error of run.
func exitStatus(err error) int {
	var g *vm.GuestError
	if errors.As(err, &g) {
		return exitGuest
	}
	return exitOther
}
