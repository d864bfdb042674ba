package sys

import (
	"encoding/binary"
	"strconv"

	"dinos/dkernel/uio"
	"dinos/kernel/linux"
)

// How calls are printed by --strace, in the manner of strace(1): "openat(AT_FDCWD, "/etc", O_RDONLY) = 3". Values that a call fills in
// are printed as addresses but for buffers of bytes.

// maxStringShown is how much of strings and buffers is printed, as by strace -s.
const maxStringShown = 32

// Format appends nr(args) to b. The program's memory is read; what cannot be read is printed as its address. Buffers that the
// call fills are printed when it is over, n > 0 being its result; n < 0 says that it is not.
func Format(b []byte, mem uio.Memory, nr uint64, a *Args, n int64) []byte {
	if nr >= NumCalls || abi[nr].Name == "" {
		b = append(b, "syscall_"...)
		b = strconv.AppendUint(b, nr, 10)
		b = append(b, '(')
		for i, v := range a {
			b = comma(b, i)
			b = hex(b, v)
		}
		return append(b, ')')
	}
	b = append(b, abi[nr].Name...)
	b = append(b, '(')
	first := true
	for i, kind := range []byte(abi[nr].Args) {
		if i >= len(a) {
			break
		}
		if !first {
			b = append(b, ", "...)
		}
		first = false
		if (kind == 'b' || kind == 'B') && i+1 < len(a) {
			size := int64(a[i+1])
			if kind == 'B' {
				size = n
			}
			b = buffer(b, mem, a[i], size)
			continue
		}
		if kind == '_' {
			kind = 'u'
		}
		b = argument(b, mem, kind, a[i])
	}
	return append(b, ')')
}

// Result appends " = value" or " = -1 ENOENT (no such file or directory)".
func Result(b []byte, ret uint64) []byte {
	b = append(b, " = "...)
	if e := linux.Errno(-ret); e > 0 && e < 4096 {
		if e >= linux.ERESTARTSYS {
			return append(append(append(b, "? "...), restartName(e)...), " (to be restarted)"...)
		}
		return append(append(append(append(append(b, "-1 "...), e.Name()...), " ("...), e.Error()...), ')')
	}
	if ret > 1<<32 {
		return hex(b, ret)
	}
	return strconv.AppendInt(b, int64(ret), 10)
}

func restartName(e linux.Errno) string {
	switch e {
	case linux.ERESTARTSYS:
		return "ERESTARTSYS"
	case linux.ERESTARTNOINTR:
		return "ERESTARTNOINTR"
	case linux.ERESTARTNOHAND:
		return "ERESTARTNOHAND"
	case linux.ERESTART_RESTARTBLOCK:
		return "ERESTART_RESTARTBLOCK"
	}
	return e.Name()
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		return append(b, ", "...)
	}
	return b
}

func hex(b []byte, v uint64) []byte {
	if v == 0 {
		return append(b, '0')
	}
	return strconv.AppendUint(append(b, "0x"...), v, 16)
}

func buffer(b []byte, mem uio.Memory, addr uint64, n int64) []byte {
	if n < 0 || addr == 0 {
		return pointer(b, addr)
	}
	var p [maxStringShown]byte
	got, err := mem.CopyIn(p[:min(n, maxStringShown)], addr)
	if err != nil && got == 0 {
		return pointer(b, addr)
	}
	b = strconv.AppendQuoteToASCII(b, string(p[:got]))
	if n > int64(got) {
		b = append(b, "..."...)
	}
	return b
}

func pointer(b []byte, v uint64) []byte {
	if v == 0 {
		return append(b, "NULL"...)
	}
	return hex(b, v)
}

func str(b []byte, mem uio.Memory, addr uint64) []byte {
	var p [maxStringShown + 1]byte
	n, _ := mem.CopyIn(p[:], addr)
	for i, c := range p[:n] {
		if c == 0 {
			return strconv.AppendQuote(b, string(p[:i]))
		}
	}
	if n < len(p) {
		return pointer(b, addr)
	}
	return append(strconv.AppendQuote(b, string(p[:maxStringShown])), "..."...)
}

func argument(b []byte, mem uio.Memory, kind byte, v uint64) []byte {
	switch kind {
	case 'f', 'i':
		return strconv.AppendInt(b, int64(int32(v)), 10)
	case 'a':
		if int32(v) == -100 {
			return append(b, "AT_FDCWD"...)
		}
		return strconv.AppendInt(b, int64(int32(v)), 10)
	case 's':
		return str(b, mem, v)
	case 'u':
		return strconv.AppendUint(b, v, 10)
	case 'l':
		return strconv.AppendInt(b, int64(v), 10)
	case 'p':
		return pointer(b, v)
	case 'm':
		return strconv.AppendUint(append(b, '0'), v&0o177777, 8)
	case 'A':
		return list(b, mem, v)
	case 't':
		return timespec(b, mem, v)
	case 'g':
		return signalArg(b, v)
	}
	if names, ok := names(kind); ok {
		return names.append(b, v)
	}
	return hex(b, v)
}

func list(b []byte, mem uio.Memory, addr uint64) []byte {
	b = append(b, '[')
	for i := range 8 {
		var p [8]byte
		if _, err := mem.CopyIn(p[:], addr+uint64(8*i)); err != nil {
			break
		}
		s := binary.LittleEndian.Uint64(p[:])
		if s == 0 {
			return append(b, ']')
		}
		b = str(comma(b, i), mem, s)
	}
	return append(b, ", ...]"...)
}

func timespec(b []byte, mem uio.Memory, addr uint64) []byte {
	var p [16]byte
	if addr == 0 {
		return append(b, "NULL"...)
	}
	if _, err := mem.CopyIn(p[:], addr); err != nil {
		return pointer(b, addr)
	}
	b = append(b, "{tv_sec="...)
	b = strconv.AppendInt(b, int64(binary.LittleEndian.Uint64(p[:])), 10)
	b = append(b, ", tv_nsec="...)
	b = strconv.AppendInt(b, int64(binary.LittleEndian.Uint64(p[8:])), 10)
	return append(b, '}')
}

// signalNames are those of signal(7) on x86-64.
var signalNames = [...]string{1: "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
	"SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU",
	"SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS"}

// SignalName is the name of a signal, such as SIGTERM or SIGRT_3.
func SignalName(n int) string {
	if n > 0 && n < len(signalNames) {
		return signalNames[n]
	}
	if n >= 32 && n <= 64 {
		return "SIGRT_" + strconv.Itoa(n-32)
	}
	return strconv.Itoa(n)
}

func signalArg(b []byte, v uint64) []byte { return append(b, SignalName(int(int32(v)))...) }

// a name is a value, or the bits of one under a mask.
type name struct {
	mask, value uint64
	text        string
}

// set is how an argument is written: names that match, joined by |, and what is left in hexadecimal.
type set []name

func (s set) append(b []byte, v uint64) []byte {
	left, start := v, len(b)
	for _, n := range s {
		if v&n.mask == n.value && (n.value != 0 || n.mask != 0 && left&n.mask == 0) && (left&n.value != 0 || n.value == 0) {
			if len(b) > start {
				if n.value == 0 {
					continue
				}
				b = append(b, '|')
			}
			b = append(b, n.text...)
			left &^= n.mask
		}
	}
	if left != 0 || len(b) == start {
		if len(b) > start {
			b = append(b, '|')
		}
		b = hex(b, left)
	}
	return b
}

// bits makes names of single bits, values of the whole argument.
func bits(names ...any) set {
	var s set
	for i := 0; i < len(names); i += 2 {
		v := uint64(names[i].(int))
		s = append(s, name{v, v, names[i+1].(string)})
	}
	return s
}

func values(names ...any) set {
	var s set
	for i := 0; i < len(names); i += 2 {
		s = append(s, name{0xffff_ffff, uint64(names[i].(int)), names[i+1].(string)})
	}
	return s
}

// sets are by the letter of ABI.Args.
var sets = map[byte]set{
	'o': append(set{{3, 0, "O_RDONLY"}, {3, 1, "O_WRONLY"}, {3, 2, "O_RDWR"}, {0x101000, 0x101000, "O_SYNC"}, {0x410000, 0x410000, "O_TMPFILE"}},
		bits(0x40, "O_CREAT", 0x80, "O_EXCL", 0x100, "O_NOCTTY", 0x200, "O_TRUNC", 0x400, "O_APPEND", 0x800, "O_NONBLOCK", 0x1000, "O_DSYNC",
			0x4000, "O_DIRECT", 0x8000, "O_LARGEFILE", 0x10000, "O_DIRECTORY", 0x20000, "O_NOFOLLOW", 0x40000, "O_NOATIME", 0x80000, "O_CLOEXEC", 0x200000, "O_PATH")...),
	'M': append(set{{15, 0, "PROT_NONE"}}, bits(1, "PROT_READ", 2, "PROT_WRITE", 4, "PROT_EXEC", 8, "PROT_SEM", 0x1000000, "PROT_GROWSDOWN")...),
	'N': append(set{{15, 1, "MAP_SHARED"}, {15, 2, "MAP_PRIVATE"}, {15, 3, "MAP_SHARED_VALIDATE"}, {15, 8, "MAP_DROPPABLE"}},
		bits(0x10, "MAP_FIXED", 0x20, "MAP_ANONYMOUS", 0x40, "MAP_32BIT", 0x100, "MAP_GROWSDOWN", 0x800, "MAP_DENYWRITE", 0x1000, "MAP_EXECUTABLE",
			0x2000, "MAP_LOCKED", 0x4000, "MAP_NORESERVE", 0x8000, "MAP_POPULATE", 0x10000, "MAP_NONBLOCK", 0x20000, "MAP_STACK", 0x40000, "MAP_HUGETLB", 0x100000, "MAP_FIXED_NOREPLACE")...),
	'V': values(0, "MADV_NORMAL", 1, "MADV_RANDOM", 2, "MADV_SEQUENTIAL", 3, "MADV_WILLNEED", 4, "MADV_DONTNEED", 8, "MADV_FREE", 10, "MADV_DONTFORK",
		11, "MADV_DOFORK", 14, "MADV_HUGEPAGE", 15, "MADV_NOHUGEPAGE", 20, "MADV_COLD", 21, "MADV_PAGEOUT", 22, "MADV_POPULATE_READ", 23, "MADV_POPULATE_WRITE"),
	'h': values(0, "SIG_BLOCK", 1, "SIG_UNBLOCK", 2, "SIG_SETMASK"),
	'c': values(0, "CLOCK_REALTIME", 1, "CLOCK_MONOTONIC", 2, "CLOCK_PROCESS_CPUTIME_ID", 3, "CLOCK_THREAD_CPUTIME_ID", 4, "CLOCK_MONOTONIC_RAW",
		5, "CLOCK_REALTIME_COARSE", 6, "CLOCK_MONOTONIC_COARSE", 7, "CLOCK_BOOTTIME", 11, "CLOCK_TAI"),
	'w': values(0, "SEEK_SET", 1, "SEEK_CUR", 2, "SEEK_END", 3, "SEEK_DATA", 4, "SEEK_HOLE"),
	'C': append(set{{0xff, 17, "SIGCHLD"}}, bits(0x100, "CLONE_VM", 0x200, "CLONE_FS", 0x400, "CLONE_FILES", 0x800, "CLONE_SIGHAND", 0x1000, "CLONE_PIDFD",
		0x4000, "CLONE_VFORK", 0x8000, "CLONE_PARENT", 0x10000, "CLONE_THREAD", 0x40000, "CLONE_SYSVSEM", 0x80000, "CLONE_SETTLS",
		0x100000, "CLONE_PARENT_SETTID", 0x200000, "CLONE_CHILD_CLEARTID", 0x1000000, "CLONE_CHILD_SETTID")...),
	'F': values(0, "F_DUPFD", 1, "F_GETFD", 2, "F_SETFD", 3, "F_GETFL", 4, "F_SETFL", 5, "F_GETLK", 6, "F_SETLK", 7, "F_SETLKW", 8, "F_SETOWN", 9, "F_GETOWN",
		36, "F_OFD_GETLK", 37, "F_OFD_SETLK", 38, "F_OFD_SETLKW", 1030, "F_DUPFD_CLOEXEC", 1031, "F_SETPIPE_SZ", 1032, "F_GETPIPE_SZ", 1033, "F_ADD_SEALS", 1034, "F_GET_SEALS"),
	'I': values(0x5401, "TCGETS", 0x5402, "TCSETS", 0x5403, "TCSETSW", 0x5404, "TCSETSF", 0x5409, "TCSBRK", 0x540b, "TCFLSH", 0x540e, "TIOCSCTTY", 0x540f, "TIOCGPGRP",
		0x5410, "TIOCSPGRP", 0x5413, "TIOCGWINSZ", 0x5414, "TIOCSWINSZ", 0x541b, "FIONREAD", 0x5421, "FIONBIO", 0x5450, "FIONCLEX", 0x5451, "FIOCLEX"),
	'P': values(1, "PR_SET_PDEATHSIG", 2, "PR_GET_PDEATHSIG", 3, "PR_GET_DUMPABLE", 4, "PR_SET_DUMPABLE", 15, "PR_SET_NAME", 16, "PR_GET_NAME",
		23, "PR_CAPBSET_READ", 36, "PR_SET_CHILD_SUBREAPER", 38, "PR_SET_NO_NEW_PRIVS", 0x53564d41, "PR_SET_VMA"),
	'U': {{0x7f, 0, "FUTEX_WAIT"}, {0x7f, 1, "FUTEX_WAKE"}, {0x7f, 3, "FUTEX_REQUEUE"}, {0x7f, 4, "FUTEX_CMP_REQUEUE"}, {0x7f, 5, "FUTEX_WAKE_OP"},
		{0x7f, 6, "FUTEX_LOCK_PI"}, {0x7f, 7, "FUTEX_UNLOCK_PI"}, {0x7f, 9, "FUTEX_WAIT_BITSET"}, {0x7f, 10, "FUTEX_WAKE_BITSET"},
		{0x80, 0x80, "FUTEX_PRIVATE_FLAG"}, {0x100, 0x100, "FUTEX_CLOCK_REALTIME"}},
	'E': values(1, "EPOLL_CTL_ADD", 2, "EPOLL_CTL_DEL", 3, "EPOLL_CTL_MOD"),
	'R': values(0, "RLIMIT_CPU", 1, "RLIMIT_FSIZE", 2, "RLIMIT_DATA", 3, "RLIMIT_STACK", 4, "RLIMIT_CORE", 6, "RLIMIT_NPROC", 7, "RLIMIT_NOFILE",
		8, "RLIMIT_MEMLOCK", 9, "RLIMIT_AS"),
}

func names(kind byte) (set, bool) {
	s, ok := sets[kind]
	return s, ok
}
