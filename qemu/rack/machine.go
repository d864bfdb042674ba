package rack

import (
	"context"
	"errors"
	"strings"

	"dinos/kernel/testproto"
	"dinos/qemu/vm"
)

// machine is a virtual machine that runs. Tests have others than QEMU's.
type machine interface {
	PID() int
	Wait(ctx context.Context) (testproto.Exit, error)
	Console() *vm.Console
	Dump(ctx context.Context) (string, error)
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Close() // kills it, waits until it is gone
}

type qemu struct{ *vm.VM }

func startVM(cfg vm.Config) (machine, error) {
	v, err := vm.Start(cfg)
	if err != nil {
		return nil, err
	}
	return qemu{v}, nil
}

func (q qemu) Pause(ctx context.Context) error  { return q.Monitor().Run(ctx, "stop", nil, nil) }
func (q qemu) Resume(ctx context.Context) error { return q.Monitor().Run(ctx, "cont", nil, nil) }

// ending describes in a line how a machine ended, from the error of Wait.
func ending(exit testproto.Exit, err error) string {
	var g *vm.GuestError
	switch {
	case err == nil:
		return "ended in order"
	case errors.As(err, &g):
		text := string(g.Failure)
		if exit == testproto.ExitFenced {
			text = "stopped itself: it was fenced"
		} else if g.Detail != "" {
			text += ": " + g.Detail
		}
		return text
	}
	var h *vm.HostError
	text := err.Error()
	if errors.As(err, &h) {
		text = h.Op + ": " + h.Err.Error()
		if msg, _, _ := strings.Cut(strings.TrimSpace(h.Stderr), "\n"); msg != "" {
			text += "; QEMU says: " + msg
		}
	}
	first, _, _ := strings.Cut(text, "\n")
	return first
}
