package main

import (
	"errors"

	"dinos/qemu/rack/control"
	"dinos/qemu/vm"
)

// Exit statuses of the process.
const (
	exitGuest = 1 // a kernel failed, or a rack's audit
	exitOther = 2 // wrong usage, or the host
)

// exitStatus is the status for an error of run.
func exitStatus(err error) int {
	var g *vm.GuestError
	var c *control.Error
	var p *programError
	if errors.As(err, &p) {
		return p.exit()
	}
	if errors.As(err, &g) || errors.As(err, &c) && c.Code == control.CodeGuest || errors.Is(err, errUnclean) {
		return exitGuest
	}
	return exitOther
}
