package uio

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/kernel/linux"
)

// flat is memory from address 100 on.
type flat []byte

func (f flat) at(addr, n uint64) ([]byte, error) {
	if addr < 100 || addr-100 >= uint64(len(f)) {
		return nil, linux.EFAULT
	}
	p := f[addr-100:]
	if uint64(len(p)) < n {
		return p, linux.EFAULT
	}
	return p[:n], nil
}

func (f flat) CopyIn(dst []byte, addr uint64) (int, error) {
	p, err := f.at(addr, uint64(len(dst)))
	return copy(dst, p), err
}

func (f flat) CopyOut(addr uint64, src []byte) (int, error) {
	p, err := f.at(addr, uint64(len(src)))
	return copy(p, src), err
}

func (f flat) Zero(addr, n uint64) (uint64, error) {
	p, err := f.at(addr, n)
	clear(p)
	return uint64(len(p)), err
}

func TestVecs(t *testing.T) {
	m := flat(make([]byte, 20))
	var o IO
	require.NoError(t, o.UserVecs(m, []Vec{{102, 3}, {5, 0}, {110, 20}}))
	require.EqualValues(t, 23, o.Len())
	n, err := o.Write([]byte("abcde"))
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.Equal(t, "\x00\x00abc\x00\x00\x00\x00\x00de", string(m[:12]))
	z, err := o.Zero(1)
	require.NoError(t, err)
	require.EqualValues(t, 1, z)
	n, err = o.Write([]byte("0123456789"))
	require.Equal(t, linux.EFAULT, err)
	require.Equal(t, 7, n, "what fitted before the fault")
	require.EqualValues(t, 10, o.Len())
}

func TestReadAndLimit(t *testing.T) {
	m := flat("hello, world")
	var o IO
	o.User(m, 107, 5)
	o.Limit(3)
	p := make([]byte, 8)
	n, err := o.Read(p)
	require.NoError(t, err)
	require.Equal(t, "wor", string(p[:n]))
	n, err = o.Read(p)
	require.NoError(t, err)
	require.Zero(t, n)
	o.User(m, 1, 5)
	n, err = o.Read(p)
	require.Equal(t, linux.EFAULT, err)
	require.Zero(t, n)
}

func TestOwn(t *testing.T) {
	p := []byte("......")
	var o IO
	o.Bytes(p)
	_, _ = o.Write([]byte("ab"))
	z, _ := o.Zero(1)
	require.EqualValues(t, 1, z)
	n, _ := o.Write([]byte("cdefg"))
	require.Equal(t, 3, n)
	require.Equal(t, "ab\x00cde", string(p))
	require.Error(t, o.UserVecs(nil, []Vec{{0, 1 << 63}}))
	require.Error(t, o.UserVecs(nil, []Vec{{0, 1<<63 - 1}, {0, 1}}))
}
