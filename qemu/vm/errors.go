package vm

import (
	"fmt"
	"strings"
)

// Failure is how a guest failed.
type Failure string

const (
	Failed  Failure = "reported failure"      // testproto.ExitFail
	Crashed Failure = "crashed"               // testproto.ExitCrash
	Refused Failure = "refused to boot"       // testproto.ExitRefused
	Fenced  Failure = "was fenced"            // testproto.ExitFenced
	Exited  Failure = "exited"                // another value at the isa-debug-exit port
	Reset   Failure = "reset (triple fault?)" // with -no-reboot that ends QEMU
	Off     Failure = "powered off"           // without saying how it went
	Hung    Failure = "made no progress"      // a deadline passed while QEMU was well
)

// GuestError is a failure of the kernel in the machine.
type GuestError struct {
	VM      string
	Failure Failure
	Detail  string   // what was waited for, or the exit code; may be ""
	Console []string // the last lines
	Dump    string   // registers and stacks of a hung guest, else ""
}

func (e *GuestError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: guest %s", e.VM, e.Failure)
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	if len(e.Console) > 0 {
		fmt.Fprintf(&b, "\n--- console of %s, last lines\n%s", e.VM, strings.Join(e.Console, "\n"))
	}
	if e.Dump != "" {
		fmt.Fprintf(&b, "\n%s", strings.TrimRight(e.Dump, "\n"))
	}
	return b.String()
}

// HostError is a failure of what the machine runs on, or of how it was asked for.
type HostError struct {
	VM     string
	Op     string // what was being done
	Err    error
	Stderr string // what QEMU said, may be ""
}

func (e *HostError) Error() string {
	s := fmt.Sprintf("%s: %s: %v", e.VM, e.Op, e.Err)
	if msg := strings.TrimSpace(e.Stderr); msg != "" {
		s += "; QEMU says: " + msg
	}
	return s
}

func (e *HostError) Unwrap() error { return e.Err }
