package linux

import (
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// The constants of signals and processes that the Go distribution has as well.
func TestProcessNumbers(t *testing.T) {
	for name, c := range map[string][2]int64{
		"SIGHUP": {SIGHUP, int64(syscall.SIGHUP)}, "SIGINT": {SIGINT, int64(syscall.SIGINT)}, "SIGQUIT": {SIGQUIT, int64(syscall.SIGQUIT)},
		"SIGABRT": {SIGABRT, int64(syscall.SIGABRT)}, "SIGKILL": {SIGKILL, int64(syscall.SIGKILL)}, "SIGUSR1": {SIGUSR1, int64(syscall.SIGUSR1)},
		"SIGUSR2": {SIGUSR2, int64(syscall.SIGUSR2)}, "SIGPIPE": {SIGPIPE, int64(syscall.SIGPIPE)}, "SIGALRM": {SIGALRM, int64(syscall.SIGALRM)},
		"SIGTERM": {SIGTERM, int64(syscall.SIGTERM)}, "SIGSTKFLT": {SIGSTKFLT, int64(syscall.SIGSTKFLT)}, "SIGCHLD": {SIGCHLD, int64(syscall.SIGCHLD)},
		"SIGCONT": {SIGCONT, int64(syscall.SIGCONT)}, "SIGSTOP": {SIGSTOP, int64(syscall.SIGSTOP)}, "SIGTSTP": {SIGTSTP, int64(syscall.SIGTSTP)},
		"SIGTTIN": {SIGTTIN, int64(syscall.SIGTTIN)}, "SIGTTOU": {SIGTTOU, int64(syscall.SIGTTOU)}, "SIGXCPU": {SIGXCPU, int64(syscall.SIGXCPU)},
		"SIGXFSZ": {SIGXFSZ, int64(syscall.SIGXFSZ)}, "SIGVTALRM": {SIGVTALRM, int64(syscall.SIGVTALRM)}, "SIGPROF": {SIGPROF, int64(syscall.SIGPROF)},
		"SIGWINCH": {SIGWINCH, int64(syscall.SIGWINCH)}, "SIGIO": {SIGIO, int64(syscall.SIGIO)}, "SIGPWR": {SIGPWR, int64(syscall.SIGPWR)},
		"SIGSYS":   {SIGSYS, int64(syscall.SIGSYS)},
		"CLONE_FS": {CLONE_FS, syscall.CLONE_FS}, "CLONE_FILES": {CLONE_FILES, syscall.CLONE_FILES}, "CLONE_SIGHAND": {CLONE_SIGHAND, syscall.CLONE_SIGHAND},
		"CLONE_PTRACE": {CLONE_PTRACE, syscall.CLONE_PTRACE}, "CLONE_VFORK": {CLONE_VFORK, syscall.CLONE_VFORK}, "CLONE_PARENT": {CLONE_PARENT, syscall.CLONE_PARENT},
		"CLONE_NEWNS": {CLONE_NEWNS, syscall.CLONE_NEWNS}, "CLONE_SYSVSEM": {CLONE_SYSVSEM, syscall.CLONE_SYSVSEM},
		"CLONE_PARENT_SETTID": {CLONE_PARENT_SETTID, syscall.CLONE_PARENT_SETTID}, "CLONE_CHILD_CLEARTID": {CLONE_CHILD_CLEARTID, syscall.CLONE_CHILD_CLEARTID},
		"CLONE_DETACHED": {CLONE_DETACHED, syscall.CLONE_DETACHED}, "CLONE_UNTRACED": {CLONE_UNTRACED, syscall.CLONE_UNTRACED},
		"CLONE_CHILD_SETTID": {CLONE_CHILD_SETTID, syscall.CLONE_CHILD_SETTID}, "CLONE_NEWUTS": {CLONE_NEWUTS, syscall.CLONE_NEWUTS},
		"CLONE_NEWIPC": {CLONE_NEWIPC, syscall.CLONE_NEWIPC}, "CLONE_NEWUSER": {CLONE_NEWUSER, syscall.CLONE_NEWUSER},
		"CLONE_NEWPID": {CLONE_NEWPID, syscall.CLONE_NEWPID}, "CLONE_NEWNET": {CLONE_NEWNET, syscall.CLONE_NEWNET}, "CLONE_IO": {CLONE_IO, syscall.CLONE_IO},
		"CLONE_NEWCGROUP": {CLONE_NEWCGROUP, syscall.CLONE_NEWCGROUP}, "CLONE_NEWTIME": {CLONE_NEWTIME, syscall.CLONE_NEWTIME},
		"CLONE_PIDFD": {CLONE_PIDFD, syscall.CLONE_PIDFD}, "CLONE_INTO_CGROUP": {CLONE_INTO_CGROUP, syscall.CLONE_INTO_CGROUP},
		"CLONE_CLEAR_SIGHAND": {CLONE_CLEAR_SIGHAND, syscall.CLONE_CLEAR_SIGHAND},
		"WNOHANG":             {WNOHANG, syscall.WNOHANG}, "WUNTRACED": {WUNTRACED, syscall.WUNTRACED}, "WSTOPPED": {WSTOPPED, syscall.WSTOPPED},
		"WEXITED": {WEXITED, syscall.WEXITED}, "WCONTINUED": {WCONTINUED, syscall.WCONTINUED}, "WNOWAIT": {WNOWAIT, syscall.WNOWAIT},
		"WNOTHREAD": {WNOTHREAD, syscall.WNOTHREAD}, "WALL": {WALL, syscall.WALL}, "WCLONE": {WCLONE, syscall.WCLONE},
		"RLIMIT_CPU": {RLIMIT_CPU, syscall.RLIMIT_CPU}, "RLIMIT_FSIZE": {RLIMIT_FSIZE, syscall.RLIMIT_FSIZE}, "RLIMIT_DATA": {RLIMIT_DATA, syscall.RLIMIT_DATA},
		"RLIMIT_STACK": {RLIMIT_STACK, syscall.RLIMIT_STACK}, "RLIMIT_CORE": {RLIMIT_CORE, syscall.RLIMIT_CORE},
		"RLIMIT_NOFILE": {RLIMIT_NOFILE, syscall.RLIMIT_NOFILE}, "RLIMIT_AS": {RLIMIT_AS, syscall.RLIMIT_AS},
		"RUSAGE_SELF": {RUSAGE_SELF, syscall.RUSAGE_SELF}, "RUSAGE_CHILDREN": {RUSAGE_CHILDREN, syscall.RUSAGE_CHILDREN}, "RUSAGE_THREAD": {RUSAGE_THREAD, syscall.RUSAGE_THREAD},
		"PR_SET_PDEATHSIG": {PR_SET_PDEATHSIG, syscall.PR_SET_PDEATHSIG}, "PR_GET_DUMPABLE": {PR_GET_DUMPABLE, syscall.PR_GET_DUMPABLE},
		"PR_SET_KEEPCAPS": {PR_SET_KEEPCAPS, syscall.PR_SET_KEEPCAPS}, "PR_SET_NAME": {PR_SET_NAME, syscall.PR_SET_NAME},
		"PR_CAPBSET_READ": {PR_CAPBSET_READ, syscall.PR_CAPBSET_READ}, "PR_CAPBSET_DROP": {PR_CAPBSET_DROP, syscall.PR_CAPBSET_DROP},
		"PR_SET_SECUREBITS": {PR_SET_SECUREBITS, syscall.PR_SET_SECUREBITS}, "PR_SET_TIMERSLACK": {PR_SET_TIMERSLACK, syscall.PR_SET_TIMERSLACK},
		"PR_MCE_KILL_GET": {PR_MCE_KILL_GET, syscall.PR_MCE_KILL_GET}, "PR_GET_TSC": {PR_GET_TSC, syscall.PR_GET_TSC}, "PR_GET_TIMING": {PR_GET_TIMING, syscall.PR_GET_TIMING},
		"PR_GET_SECCOMP": {PR_GET_SECCOMP, syscall.PR_GET_SECCOMP}, "PR_TSC_SIGSEGV": {PR_TSC_SIGSEGV, syscall.PR_TSC_SIGSEGV},
	} {
		require.Equal(t, c[1], c[0], name)
	}
	require.Equal(t, unsafe.Sizeof(syscall.Rusage{}), unsafe.Sizeof(Rusage{}))
	require.EqualValues(t, CLONE_ARGS_SIZE_VER2, unsafe.Sizeof(CloneArgs{}))
	require.EqualValues(t, SCHED_ATTR_SIZE_VER1, unsafe.Sizeof(SchedAttr{}))
}

func TestTimeval(t *testing.T) {
	ns, ok := Timeval{3, 5}.Ns()
	require.True(t, ok)
	require.EqualValues(t, 3_000_005_000, ns)
	for _, bad := range []Timeval{{-1, 0}, {0, -1}, {0, 1e6}} {
		_, ok := bad.Ns()
		require.False(t, ok)
	}
	require.Equal(t, Timeval{3, 5}, NsTimeval(3_000_005_999))
	require.Equal(t, Timespec{3, 5999}, NsTimespec(3_000_005_999))
}
