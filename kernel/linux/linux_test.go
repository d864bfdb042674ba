package linux

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every number is checked against the Go distribution's, which is generated from Linux' headers.
func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want int64
	}{
		{"read", SYS_READ, syscall.SYS_READ}, {"write", SYS_WRITE, syscall.SYS_WRITE},
		{"open", SYS_OPEN, syscall.SYS_OPEN}, {"close", SYS_CLOSE, syscall.SYS_CLOSE},
		{"mmap", SYS_MMAP, syscall.SYS_MMAP}, {"mprotect", SYS_MPROTECT, syscall.SYS_MPROTECT},
		{"munmap", SYS_MUNMAP, syscall.SYS_MUNMAP}, {"rt_sigaction", SYS_RT_SIGACTION, syscall.SYS_RT_SIGACTION},
		{"rt_sigprocmask", SYS_RT_SIGPROCMASK, syscall.SYS_RT_SIGPROCMASK},
		{"rt_sigreturn", SYS_RT_SIGRETURN, syscall.SYS_RT_SIGRETURN}, {"ioctl", SYS_IOCTL, syscall.SYS_IOCTL},
		{"access", SYS_ACCESS, syscall.SYS_ACCESS}, {"sched_yield", SYS_SCHED_YIELD, syscall.SYS_SCHED_YIELD},
		{"mincore", SYS_MINCORE, syscall.SYS_MINCORE}, {"madvise", SYS_MADVISE, syscall.SYS_MADVISE},
		{"nanosleep", SYS_NANOSLEEP, syscall.SYS_NANOSLEEP}, {"getpid", SYS_GETPID, syscall.SYS_GETPID},
		{"clone", SYS_CLONE, syscall.SYS_CLONE}, {"exit", SYS_EXIT, syscall.SYS_EXIT},
		{"uname", SYS_UNAME, syscall.SYS_UNAME}, {"getuid", SYS_GETUID, syscall.SYS_GETUID},
		{"getgid", SYS_GETGID, syscall.SYS_GETGID}, {"geteuid", SYS_GETEUID, syscall.SYS_GETEUID},
		{"getegid", SYS_GETEGID, syscall.SYS_GETEGID}, {"fcntl", SYS_FCNTL, syscall.SYS_FCNTL},
		{"sigaltstack", SYS_SIGALTSTACK, syscall.SYS_SIGALTSTACK}, {"prctl", SYS_PRCTL, syscall.SYS_PRCTL},
		{"arch_prctl", SYS_ARCH_PRCTL, syscall.SYS_ARCH_PRCTL}, {"gettid", SYS_GETTID, syscall.SYS_GETTID},
		{"futex", SYS_FUTEX, syscall.SYS_FUTEX},
		{"sched_setaffinity", SYS_SCHED_SETAFFINITY, syscall.SYS_SCHED_SETAFFINITY},
		{"sched_getaffinity", SYS_SCHED_GETAFFINITY, syscall.SYS_SCHED_GETAFFINITY},
		{"timer_create", SYS_TIMER_CREATE, syscall.SYS_TIMER_CREATE},
		{"clock_gettime", SYS_CLOCK_GETTIME, syscall.SYS_CLOCK_GETTIME},
		{"exit_group", SYS_EXIT_GROUP, syscall.SYS_EXIT_GROUP}, {"epoll_ctl", SYS_EPOLL_CTL, syscall.SYS_EPOLL_CTL},
		{"tgkill", SYS_TGKILL, syscall.SYS_TGKILL}, {"openat", SYS_OPENAT, syscall.SYS_OPENAT},
		{"faccessat", SYS_FACCESSAT, syscall.SYS_FACCESSAT}, {"epoll_pwait", SYS_EPOLL_PWAIT, syscall.SYS_EPOLL_PWAIT},
		{"eventfd2", SYS_EVENTFD2, syscall.SYS_EVENTFD2}, {"epoll_create1", SYS_EPOLL_CREATE1, syscall.SYS_EPOLL_CREATE1},
		{"pipe2", SYS_PIPE2, syscall.SYS_PIPE2}, {"prlimit64", SYS_PRLIMIT64, syscall.SYS_PRLIMIT64},
		{"EPERM", int64(EPERM), int64(syscall.EPERM)}, {"ENOENT", int64(ENOENT), int64(syscall.ENOENT)},
		{"ESRCH", int64(ESRCH), int64(syscall.ESRCH)}, {"EINTR", int64(EINTR), int64(syscall.EINTR)},
		{"EBADF", int64(EBADF), int64(syscall.EBADF)}, {"EAGAIN", int64(EAGAIN), int64(syscall.EAGAIN)},
		{"ENOMEM", int64(ENOMEM), int64(syscall.ENOMEM)}, {"EFAULT", int64(EFAULT), int64(syscall.EFAULT)},
		{"EEXIST", int64(EEXIST), int64(syscall.EEXIST)}, {"EINVAL", int64(EINVAL), int64(syscall.EINVAL)},
		{"EMFILE", int64(EMFILE), int64(syscall.EMFILE)}, {"ENOSYS", int64(ENOSYS), int64(syscall.ENOSYS)},
		{"ETIMEDOUT", int64(ETIMEDOUT), int64(syscall.ETIMEDOUT)},
		{"PROT_READ", PROT_READ, syscall.PROT_READ}, {"PROT_WRITE", PROT_WRITE, syscall.PROT_WRITE},
		{"PROT_EXEC", PROT_EXEC, syscall.PROT_EXEC}, {"MAP_SHARED", MAP_SHARED, syscall.MAP_SHARED},
		{"MAP_PRIVATE", MAP_PRIVATE, syscall.MAP_PRIVATE}, {"MAP_FIXED", MAP_FIXED, syscall.MAP_FIXED},
		{"MAP_ANONYMOUS", MAP_ANONYMOUS, syscall.MAP_ANONYMOUS}, {"MADV_DONTNEED", MADV_DONTNEED, syscall.MADV_DONTNEED},
		{"CLONE_VM", CLONE_VM, syscall.CLONE_VM}, {"CLONE_THREAD", CLONE_THREAD, syscall.CLONE_THREAD},
		{"CLONE_SETTLS", CLONE_SETTLS, syscall.CLONE_SETTLS},
		{"SIGILL", SIGILL, int64(syscall.SIGILL)}, {"SIGTRAP", SIGTRAP, int64(syscall.SIGTRAP)},
		{"SIGBUS", SIGBUS, int64(syscall.SIGBUS)}, {"SIGFPE", SIGFPE, int64(syscall.SIGFPE)},
		{"SIGSEGV", SIGSEGV, int64(syscall.SIGSEGV)}, {"SIGURG", SIGURG, int64(syscall.SIGURG)},
		{"F_GETFL", F_GETFL, syscall.F_GETFL}, {"F_SETFL", F_SETFL, syscall.F_SETFL},
		{"F_GETFD", F_GETFD, syscall.F_GETFD}, {"F_SETFD", F_SETFD, syscall.F_SETFD},
		{"O_NONBLOCK", O_NONBLOCK, syscall.O_NONBLOCK}, {"O_RDWR", O_RDWR, syscall.O_RDWR},
		{"EPOLL_CTL_ADD", EPOLL_CTL_ADD, syscall.EPOLL_CTL_ADD}, {"EPOLL_CTL_DEL", EPOLL_CTL_DEL, syscall.EPOLL_CTL_DEL},
		{"EPOLL_CTL_MOD", EPOLL_CTL_MOD, syscall.EPOLL_CTL_MOD}, {"EPOLLIN", EPOLLIN, syscall.EPOLLIN},
		{"EPOLLOUT", EPOLLOUT, syscall.EPOLLOUT}, {"EPOLLET", EPOLLET, -syscall.EPOLLET},
	} {
		require.Equal(t, c.want, c.got, c.name)
	}
}

func TestTimespec(t *testing.T) {
	for _, c := range []struct {
		in   Timespec
		want int64
		ok   bool
	}{
		{Timespec{0, 0}, 0, true}, {Timespec{1, 5}, 1e9 + 5, true}, {Timespec{-1, 0}, 0, false},
		{Timespec{0, -1}, 0, false}, {Timespec{0, 1e9}, 0, false}, {Timespec{1 << 62, 0}, 1<<63 - 1, true},
	} {
		got, ok := c.in.Ns()
		require.Equal(t, c.ok, ok, "%+v", c.in)
		require.Equal(t, c.want, got, "%+v", c.in)
	}
}
