package loader

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/kernel/linux"
)

// flat is a program's memory from address base on; what is outside faults.
type flat struct {
	base uint64
	data []byte
}

func (f *flat) CopyIn(dst []byte, addr uint64) (int, error) {
	if addr < f.base || addr-f.base >= uint64(len(f.data)) {
		return 0, linux.EFAULT
	}
	n := copy(dst, f.data[addr-f.base:])
	if n < len(dst) {
		return n, linux.EFAULT
	}
	return n, nil
}

func (f *flat) CopyOut(uint64, []byte) (int, error) { panic("written") }
func (f *flat) Zero(uint64, uint64) (uint64, error) { panic("written") }

// put appends a string, or a list of pointers, and returns its address.
func (f *flat) put(b []byte) uint64 {
	at := f.base + uint64(len(f.data))
	f.data = append(f.data, b...)
	return at
}

func (f *flat) list(strs []string) uint64 {
	var p []byte
	for _, s := range strs {
		p = binary.LittleEndian.AppendUint64(p, f.put(append([]byte(s), 0)))
	}
	return f.put(append(p, make([]byte, 8)...))
}

// strings is what a program would see.
func (a *Args) strings() (argv, env []string) {
	split := func(b []byte) []string {
		l := strings.Split(string(b), "\x00")
		return l[:len(l)-1]
	}
	return split(a.data[:a.argLen]), split(a.data[a.argLen:])
}

func TestCopyArgs(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		str := rapid.OneOf(rapid.StringMatching(`[a-z =]{0,40}`), rapid.Custom(func(r *rapid.T) string {
			return strings.Repeat("x", rapid.IntRange(0, 9000).Draw(r, "n"))
		}))
		argv := rapid.SliceOfN(str, 0, 20).Draw(r, "argv")
		env := rapid.SliceOfN(str, 0, 20).Draw(r, "env")
		f := &flat{base: 1<<20 + rapid.Uint64Range(0, 4095).Draw(r, "base")}
		a, e := f.list(argv), f.list(env) // the second list ends where the memory ends
		got, err := CopyArgs(f, a, e, 8<<20)
		require.NoError(t, err)
		want, err := NewArgs(argv, env, 8<<20)
		require.NoError(t, err)
		require.Equal(t, want, got)
		gotArgv, gotEnv := got.strings()
		if len(argv) == 0 {
			argv = []string{""}
		}
		require.Equal(t, argv, gotArgv)
		require.Equal(t, append([]string{}, env...), gotEnv)
	})
}

func TestCopyArgsErrors(t *testing.T) {
	f := &flat{base: 4096}
	good := f.list([]string{"a", "b"})
	wild := f.put(binary.LittleEndian.AppendUint64(nil, 1<<40))
	f.put(make([]byte, 8))
	unended := f.put(binary.LittleEndian.AppendUint64(nil, 1<<63))
	for _, c := range [][2]uint64{{wild, good}, {good, wild}, {1, good}, {good, 1 << 50}, {^uint64(0), 0}, {unended, 0}, {good, unended}} {
		_, err := CopyArgs(f, c[0], c[1], 8<<20)
		require.Equal(t, linux.EFAULT, Errno(err), "%#x", c)
	}
	text := f.put([]byte("text without end"))
	bad := f.put(binary.LittleEndian.AppendUint64(nil, text))
	_, err := CopyArgs(f, bad, 0, 8<<20)
	require.Equal(t, linux.EFAULT, Errno(err))
	a, err := CopyArgs(f, 0, 0, 8<<20)
	require.NoError(t, err)
	argv, env := a.strings()
	require.Equal(t, []string{""}, argv)
	require.Empty(t, env)

	// Endless lists and strings are too big, not endless work.
	huge := &flat{base: 1 << 20, data: []byte(strings.Repeat("\x10\x00\x10\x00\x00\x00\x00\x00", 1<<20))}
	_, err = CopyArgs(huge, 1<<20, 0, 8<<20)
	require.Equal(t, linux.E2BIG, Errno(err))
	_, err = CopyArgs(huge, 0, 1<<20+4, 8<<20)
	require.Contains(t, []linux.Errno{linux.E2BIG, linux.EFAULT}, Errno(err))
	long := &flat{base: 1 << 20, data: []byte(strings.Repeat("x", 1<<20))}
	at := long.list([]string{strings.Repeat("y", maxArgString-1)})
	_, err = CopyArgs(long, at, 0, 8<<20)
	require.NoError(t, err)
	at = long.list([]string{strings.Repeat("y", maxArgString)})
	_, err = CopyArgs(long, at, 0, 8<<20)
	require.Equal(t, linux.E2BIG, Errno(err))

	_, err = NewArgs([]string{"a\x00b"}, nil, 8<<20)
	require.Equal(t, linux.EINVAL, Errno(err))
	require.ErrorContains(t, err, `"a\x00b"`)
}

// TestArgLimit holds the values of execve(2).
func TestArgLimit(t *testing.T) {
	require.EqualValues(t, 2<<20, ArgLimit(8<<20))
	require.EqualValues(t, 6<<20, ArgLimit(^uint64(0)))
	require.EqualValues(t, 131072, ArgLimit(0))
	require.EqualValues(t, 131072, ArgLimit(500_000))
}

// TestShared: strings of many pointers to one long string are counted each time, so memory use stays bounded.
func TestShared(t *testing.T) {
	f := &flat{base: 1 << 20}
	s := f.put(append([]byte(strings.Repeat("z", 100_000)), 0))
	var p []byte
	for range 1000 {
		p = binary.LittleEndian.AppendUint64(p, s)
	}
	_, err := CopyArgs(f, f.put(append(p, make([]byte, 8)...)), 0, 8<<20)
	require.Equal(t, linux.E2BIG, Errno(err))
}
