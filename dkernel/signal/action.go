package signal

import (
	"sync"
	"sync/atomic"

	"dinos/kernel/linux"
)

// Action is the disposition of a signal: struct kernel_sigaction.
type Action struct {
	Handler  uint64 // an address, linux.SIG_DFL or linux.SIG_IGN
	Flags    uint64
	Restorer uint64
	Mask     Set
}

// KnownFlags are the flags of sigaction(2) that a program finds again when it asks (UAPI_SA_FLAGS).
const KnownFlags = linux.SA_NOCLDSTOP | linux.SA_NOCLDWAIT | linux.SA_SIGINFO | linux.SA_ONSTACK | linux.SA_RESTART |
	linux.SA_NODEFER | linux.SA_RESETHAND | linux.SA_RESTORER | linux.SA_EXPOSE_TAGBITS

// Ignores reports whether a signal with this disposition and number is dropped.
func (a *Action) Ignores(sig int) bool {
	return a.Handler == linux.SIG_IGN || a.Handler == linux.SIG_DFL && Ignored.Has(sig)
}

// Actions are the dispositions of all signals, shared by the threads of a process and by whoever was made with CLONE_SIGHAND. Its
// lock is a leaf.
type Actions struct {
	mu   sync.Mutex
	acts [linux.NumSignals + 1]Action // guarded by mu
	// ignored has the signals that Action.Ignores, so that senders need not lock.
	ignored atomic.Uint64
	users   atomic.Int32
}

// NewActions returns default dispositions with one user.
func NewActions() *Actions {
	a := &Actions{}
	a.ignored.Store(uint64(Ignored))
	a.users.Store(1)
	return a
}

// Ref adds a user.
func (a *Actions) Ref() *Actions { a.users.Add(1); return a }

// Unref takes a user away.
func (a *Actions) Unref() { a.users.Add(-1) }

// Shared reports whether there is more than one user.
func (a *Actions) Shared() bool { return a.users.Load() > 1 }

// Copy returns the same dispositions with one user: what fork inherits.
func (a *Actions) Copy() *Actions {
	c := NewActions()
	a.mu.Lock()
	c.acts = a.acts
	c.ignored.Store(a.ignored.Load())
	a.mu.Unlock()
	return c
}

// Get returns the disposition of sig.
func (a *Actions) Get(sig int) Action {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.acts[sig]
}

// Set changes the disposition of sig and returns the old one. What cannot be, such as a mask with SIGKILL, is mended as Linux does.
func (a *Actions) Set(sig int, n Action) (old Action) {
	n.Flags &= KnownFlags
	n.Mask &^= Unblockable
	a.mu.Lock()
	defer a.mu.Unlock()
	old = a.acts[sig]
	a.set(sig, n)
	return old
}

func (a *Actions) set(sig int, n Action) {
	a.acts[sig] = n
	bit := uint64(1) << (sig - 1)
	if n.Ignores(sig) {
		a.ignored.Or(bit)
	} else {
		a.ignored.And(^bit)
	}
}

// Take returns the disposition for delivery of sig: with SA_RESETHAND and a handler, it is the default from now on.
func (a *Actions) Take(sig int) Action {
	a.mu.Lock()
	defer a.mu.Unlock()
	act := a.acts[sig]
	if act.Handler > linux.SIG_IGN && act.Flags&linux.SA_RESETHAND != 0 {
		n := act
		n.Handler = linux.SIG_DFL
		a.set(sig, n)
	}
	return act
}

// Ignored returns the signals that are dropped when they arrive unblocked.
func (a *Actions) Ignored() Set { return Set(a.ignored.Load()) }

// Exec resets what has a handler, and forgets flags, masks and restorers (flush_signal_handlers): execve(2), CLONE_CLEAR_SIGHAND.
func (a *Actions) Exec() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for sig := 1; sig <= linux.NumSignals; sig++ {
		h := uint64(linux.SIG_DFL)
		if a.acts[sig].Handler == linux.SIG_IGN {
			h = linux.SIG_IGN
		}
		a.set(sig, Action{Handler: h})
	}
}

// Caught returns the signals that have handlers, and those that are explicitly ignored: SigCgt and SigIgn of /proc/PID/status.
func (a *Actions) Caught() (caught, ignored Set) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for sig := 1; sig <= linux.NumSignals; sig++ {
		switch a.acts[sig].Handler {
		case linux.SIG_DFL:
		case linux.SIG_IGN:
			ignored |= Of(sig)
		default:
			caught |= Of(sig)
		}
	}
	return caught, ignored
}
