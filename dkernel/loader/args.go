package loader

import (
	"bytes"
	"encoding/binary"

	"dinos/dkernel/uio"
	"dinos/kernel/linux"
)

const (
	// maxArgString is the most bytes that one argument may have, its zero byte included (MAX_ARG_STRLEN).
	maxArgString = 32 * pageSize
	// argMax is how much arguments may always have, even on small stacks (ARG_MAX).
	argMax = 131072
	// defaultStack is the stack limit that arguments are measured by at most, and that secure programs get (_STK_LIM).
	defaultStack = 8 << 20
)

// Args are the argument and environment strings of an execve.
type Args struct {
	argc, envc int
	argLen     int    // bytes of the arguments in data
	data       []byte // the arguments, then the environment, each string with its zero byte
	left       uint64 // bytes that may still be added
}

// ArgLimit is how many bytes strings and the pointers to them may have together: a quarter of the stack limit, at most 6 MiB, at
// least 128 KiB (execve(2), "Limits on size of arguments and environment").
func ArgLimit(stackLimit uint64) uint64 {
	return max(min(defaultStack/4*3, stackLimit/4), argMax)
}

// newArgs counts the pointers, of which there is always one of argv: a program without arguments gets an empty one.
func newArgs(argc, envc int, limit uint64) (*Args, error) {
	pointers := uint64(max(argc, 1)+envc) * 8
	if limit <= pointers {
		return nil, tooBig
	}
	return &Args{argc: argc, envc: envc, left: limit - pointers}, nil
}

var tooBig = &Error{Errno: linux.E2BIG}

// add takes n bytes of the limit.
func (a *Args) add(n int) error {
	if n > maxArgString || uint64(n) > a.left {
		return tooBig
	}
	a.left -= uint64(n)
	return nil
}

// NewArgs makes Args of Go strings, for a program that the kernel starts. Errors: linux.E2BIG; linux.EINVAL for a string with a
// zero byte in it.
func NewArgs(argv, env []string, stackLimit uint64) (*Args, error) {
	a, err := newArgs(len(argv), len(env), ArgLimit(stackLimit))
	if err != nil {
		return nil, err
	}
	for i, list := range [...][]string{argv, env} {
		for _, s := range list {
			if bytes.IndexByte([]byte(s), 0) >= 0 {
				return nil, fail(linux.EINVAL, "", "an argument or environment string with a zero byte in it: %q", s)
			}
			if err := a.add(len(s) + 1); err != nil {
				return nil, err
			}
			a.data = append(append(a.data, s...), 0)
		}
		if i == 0 {
			a.argLen = len(a.data)
		}
	}
	return a, a.never0()
}

// never0 gives a program without arguments an empty one: many take argv[0] for granted.
func (a *Args) never0() error {
	if a.argc > 0 {
		return nil
	}
	if err := a.add(1); err != nil {
		return err
	}
	a.argc, a.argLen = 1, 1
	a.data = append([]byte{0}, a.data...)
	return nil
}

// CopyArgs takes the strings from a program's memory; argv and envp are the addresses of lists of pointers, each ended by a null
// pointer; 0 is an empty list. What it allocates is bounded by the limit. Errors: linux.EFAULT, linux.E2BIG.
func CopyArgs(mem uio.Memory, argv, envp, stackLimit uint64) (*Args, error) {
	limit := ArgLimit(stackLimit)
	var few [64]uint64
	list, err := pointers(mem, few[:0], argv, limit)
	if err != nil {
		return nil, err
	}
	argc := len(list)
	if list, err = pointers(mem, list, envp, limit); err != nil {
		return nil, err
	}
	a, err := newArgs(argc, len(list)-argc, limit)
	if err != nil {
		return nil, err
	}
	a.data = make([]byte, 0, 64*len(list))
	for i, p := range list {
		if i == argc {
			a.argLen = len(a.data)
		}
		if err := a.copyString(mem, p); err != nil {
			return nil, err
		}
	}
	if argc == len(list) {
		a.argLen = len(a.data)
	}
	return a, a.never0()
}

// pointers appends the list at addr, without its end. A list so long that its pointers alone exceed the limit is E2BIG before its
// end has been found.
func pointers(mem uio.Memory, list []uint64, addr, limit uint64) ([]uint64, error) {
	if addr == 0 {
		return list, nil
	}
	var buf [256]byte
	for {
		// Not beyond the page: the list may end at its end, with nothing behind it.
		p := buf[:min(uint64(len(buf)), pageSize-addr%pageSize)]
		n, err := mem.CopyIn(p, addr)
		for p = p[:n]; len(p) >= 8; p = p[8:] {
			v := binary.LittleEndian.Uint64(p)
			if v == 0 {
				return list, nil
			}
			if list = append(list, v); uint64(len(list))*8 > limit {
				return nil, tooBig
			}
		}
		if err != nil {
			return nil, &Error{Errno: linux.EFAULT}
		}
		addr += uint64(n) &^ 7
		if n < 8 { // a pointer across two pages
			n, err := mem.CopyIn(buf[:8], addr)
			if err != nil || n < 8 {
				return nil, &Error{Errno: linux.EFAULT}
			}
			v := binary.LittleEndian.Uint64(buf[:])
			if v == 0 {
				return list, nil
			}
			list = append(list, v)
			addr += 8
		}
	}
}

// copyString appends the string at addr.
func (a *Args) copyString(mem uio.Memory, addr uint64) error {
	start := len(a.data)
	for chunk := uint64(64); ; chunk = min(2*chunk, pageSize) {
		at := len(a.data)
		want := int(min(chunk, pageSize-addr%pageSize))
		if cap(a.data)-at < want {
			a.data = append(a.data, make([]byte, want)...)
		}
		n, err := mem.CopyIn(a.data[at:at+want], addr)
		if i := bytes.IndexByte(a.data[at:at+n], 0); i >= 0 {
			a.data = a.data[:at+i+1]
			return a.add(len(a.data) - start)
		}
		if err != nil || n == 0 {
			return &Error{Errno: linux.EFAULT}
		}
		a.data = a.data[:at+n]
		if size := len(a.data) - start; size >= maxArgString || uint64(size) >= a.left {
			return tooBig
		}
		addr += uint64(n)
	}
}

// prepend puts the words of a "#!" line in place of the first argument. What is in prefix already, from the script that
// named this one as its interpreter, is behind them.
func (p *Program) prepend(words ...string) error {
	var front []byte
	for _, w := range words {
		if err := p.args.add(len(w) + 1); err != nil {
			return err
		}
		front = append(append(front, w...), 0)
	}
	if p.nfix == 0 {
		i := bytes.IndexByte(p.args.data, 0) + 1
		p.args.left += uint64(i)
		p.skip = i
	} else {
		i := bytes.IndexByte(p.prefix, 0) + 1
		p.args.left += uint64(i)
		p.prefix = p.prefix[i:]
		p.nfix--
	}
	p.prefix = append(front, p.prefix...)
	p.nfix += len(words)
	return nil
}

// argc is the number of arguments that the program gets.
func (p *Program) argc() int {
	if p.nfix == 0 {
		return p.args.argc
	}
	return p.nfix + p.args.argc - 1
}
