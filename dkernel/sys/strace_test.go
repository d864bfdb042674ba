package sys

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/kernel/linux"
)

// flat is memory from address 0x1000 on.
type flat []byte

func (f flat) at(addr, n uint64) ([]byte, error) {
	if addr < 0x1000 || addr-0x1000 >= uint64(len(f)) {
		return nil, linux.EFAULT
	}
	p := f[addr-0x1000:]
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

func TestFormat(t *testing.T) {
	m := make(flat, 256)
	copy(m, "/etc/passwd\x00hello\nworld, this is rather long for a trace\x00")
	m[128] = 1
	m[136] = 5
	enoent := linux.ENOENT.Ret()
	for _, c := range []struct {
		nr   uint64
		a    Args
		ret  uint64
		want string
	}{
		{syscall.SYS_OPENAT, Args{uint64(0xffffff9c), 0x1000, 0x241, 0o644}, 3, `openat(AT_FDCWD, "/etc/passwd", O_WRONLY|O_CREAT|O_TRUNC, 0644) = 3`},
		{syscall.SYS_OPEN, Args{0x1000, 0, 0}, enoent, `open("/etc/passwd", O_RDONLY, 00) = -1 ENOENT (no such file or directory)`},
		{syscall.SYS_OPEN, Args{1, 0x101000, 0}, linux.EFAULT.Ret(), `open(0x1, O_RDONLY|O_SYNC, 00) = -1 EFAULT (bad address)`},
		{syscall.SYS_WRITE, Args{1, 0x100c, 5}, 5, `write(1, "hello", 5) = 5`},
		{syscall.SYS_READ, Args{0, 0x100c, 100}, 6, `read(0, "hello\n", 100) = 6`},
		{syscall.SYS_READ, Args{0, 0x100c, 100}, linux.EAGAIN.Ret(), `read(0, 0x100c, 100) = -1 EAGAIN (resource temporarily unavailable)`},
		{syscall.SYS_WRITE, Args{1, 0x100c, 43}, 43, `write(1, "hello\nworld, this is rather long"..., 43) = 43`},
		{syscall.SYS_MMAP, Args{0, 8192, 3, 0x22, ^uint64(0), 0}, 0x7f0000000000, `mmap(0, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000`},
		{syscall.SYS_MPROTECT, Args{0x1000, 4096, 0}, 0, `mprotect(0x1000, 4096, PROT_NONE) = 0`},
		{syscall.SYS_KILL, Args{1, 15}, 0, `kill(1, SIGTERM) = 0`},
		{syscall.SYS_NANOSLEEP, Args{0x1080, 0}, linux.ERESTARTSYS.Ret(), `nanosleep({tv_sec=1, tv_nsec=5}, NULL) = ? ERESTARTSYS (to be restarted)`},
		{syscall.SYS_FUTEX, Args{0x1000, 0x80, 2, 0}, 0, `futex(0x1000, FUTEX_WAIT|FUTEX_PRIVATE_FLAG, 2, NULL, NULL, 0) = 0`},
		{syscall.SYS_GETPID, Args{1, 2, 3}, 42, `getpid() = 42`},
		{9999, Args{1, 2}, linux.ENOSYS.Ret(), `syscall_9999(0x1, 0x2, 0, 0, 0, 0) = -1 ENOSYS (function not implemented)`},
	} {
		n := int64(c.ret)
		got := string(Result(Format(nil, m, c.nr, &c.a, n), c.ret))
		require.Equal(t, c.want, got)
	}
}

// Names and letters fit together.
func TestABI(t *testing.T) {
	seen := map[string]bool{}
	for nr, a := range abi {
		if a.Name == "" {
			continue
		}
		require.False(t, seen[a.Name], a.Name)
		seen[a.Name] = true
		require.LessOrEqual(t, len(a.Args), 6, a.Name)
		for i := range []byte(a.Args) {
			if _, ok := names(a.Args[i]); !ok {
				require.Contains(t, "fasbB_iulxpmAtg", a.Args[i:i+1], a.Name)
			}
		}
		_ = nr
	}
	require.Equal(t, "openat2", abi[437].Name)
}
