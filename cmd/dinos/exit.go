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

	// Of "dinos run", as of env(1) and others that run programs.
	exitRun       = 125 // it failed itself
	exitNoExec    = 126 // the program cannot be run
	exitNoProgram = 127 // there is none
)

// runError is that "dinos run" could not run a program, or not to its end.
type runError struct{ error }

func (e *runError) Unwrap() error { return e.error }

// exit is the status that is told.
func (e *runError) exit() int {
	var c *control.Error
	if errors.As(e, &c) {
		switch {
		case c.Code == control.CodeNotFound:
			return exitNoProgram
		case c.Code == control.CodeUnsupported:
			return exitNoExec
		}
	}
	return exitRun
}

// exitStatus is the status for an error of run.
func exitStatus(err error) int {
	var g *vm.GuestError
	var c *control.Error
	var p *programError
	if errors.As(err, &p) {
		return p.exit()
	}
	if r := (*runError)(nil); errors.As(err, &r) {
		return r.exit()
	}
	if errors.As(err, &g) || errors.As(err, &c) && c.Code == control.CodeGuest || errors.Is(err, errUnclean) {
		return exitGuest
	}
	return exitOther
}
