package sys

import (
	"dinos/dkernel/ipc/pipe"
)

// Pipes, and waiting for many things at once.

func pollCalls() []Call {
	return []Call{
		{"pipe", func(t *Task, a *Args) (uint64, error) { return t.pipe(a[0], 0) }, Full, ""},
		{"pipe2", func(t *Task, a *Args) (uint64, error) { return t.pipe(a[0], uint32(a[1])) }, Full, ""},
	}
}

func (t *Task) pipe(addr uint64, flags uint32) (uint64, error) {
	r, w, err := pipe.Pipe2(t.C, flags)
	if err != nil {
		return 0, err
	}
	return t.twoFDs(addr, r, w)
}

// twoFDs stores a pair of descriptors, or closes them.
func (t *Task) twoFDs(addr uint64, a, b int) (uint64, error) {
	if err := store(t, addr, &[2]int32{int32(a), int32(b)}); err != nil {
		_ = t.C.Files.Close(t.C, a)
		_ = t.C.Files.Close(t.C, b)
		return 0, err
	}
	return 0, nil
}

func socketCalls() []Call { return nil }
