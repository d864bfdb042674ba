// Package sys is the system calls of programs: the table, and one thin handler a call, in a file per family. A handler decodes
// arguments, calls the package that does the work, and encodes the result.
//
// The table is the one place that says what is served: the trace (--strace), the list (dinos syscalls) and the counters of calls
// that are not served derive from it.
package sys

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"dinos/kernel/linux"
)

// Args are the arguments of a system call: RDI, RSI, RDX, R10, R8, R9.
type Args [6]uint64

// Level is how well a system call is served.
type Level uint8

// The levels.
const (
	None    Level = iota // ENOSYS, and counted
	Refused              // an error that Linux gives too, where the feature is not there or not allowed
	Partial              // the Note says what is missing
	Full
)

func (l Level) String() string { return [...]string{"none", "refused", "partial", "full"}[l] }

// Call is an entry of the table.
type Call struct {
	Name  string // as in ABI
	Do    func(t *Task, a *Args) (uint64, error)
	Level Level
	Note  string // what is missing, or why it is refused
}

// Table has the calls by number, and counts them. Its methods may be called by any goroutine.
type Table struct {
	calls  [NumCalls]Call
	counts [NumCalls]atomic.Uint64

	mu      sync.Mutex
	unknown map[Unknown]uint64
}

// Unknown is a call that was not served, by program.
type Unknown struct {
	Program string
	Number  uint64
}

// NewTable makes the table. A name that does not exist, or twice, is a mistake of this package: it panics.
func NewTable() *Table {
	t := &Table{unknown: map[Unknown]uint64{}}
	number := map[string]int{}
	for i, a := range abi {
		if a.Name != "" {
			number[a.Name] = i
			t.calls[i].Name = a.Name
		}
	}
	for _, family := range [...][]Call{fileCalls(), pathCalls(), memoryCalls(), processCalls(), signalCalls(), timeCalls(), pollCalls(), socketCalls(), systemCalls(), refusedCalls()} {
		for _, c := range family {
			i, ok := number[c.Name]
			if !ok || t.calls[i].Do != nil {
				panic("sys: call " + c.Name + " is in the table twice, or does not exist")
			}
			t.calls[i] = c
		}
	}
	return t
}

// Each calls f for every call of the ABI in the order of numbers.
func (t *Table) Each(f func(nr int, c Call, count uint64)) {
	for i := range t.calls {
		if t.calls[i].Name != "" {
			f(i, t.calls[i], t.counts[i].Load())
		}
	}
}

// maxUnknown bounds what is kept of calls that are not served.
const maxUnknown = 1024

// miss counts a call that is not served.
func (t *Table) miss(program string, nr uint64) {
	t.mu.Lock()
	if k := (Unknown{program, nr}); len(t.unknown) < maxUnknown || t.unknown[k] != 0 {
		t.unknown[k]++
	}
	t.mu.Unlock()
}

// Missed returns the calls that were not served, and how often, most often first, as lines.
func (t *Table) Missed() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := make([]Unknown, 0, len(t.unknown))
	for k := range t.unknown {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		if a, b := t.unknown[keys[i]], t.unknown[keys[j]]; a != b {
			return a > b
		}
		return keys[i].Program < keys[j].Program || keys[i].Program == keys[j].Program && keys[i].Number < keys[j].Number
	})
	var lines []string
	for _, k := range keys {
		lines = append(lines, fmt.Sprintf("%s: %s: %d times", k.Program, Name(k.Number), t.unknown[k]))
	}
	return lines
}

// Name is the name of a call.
func Name(nr uint64) string {
	if nr < NumCalls && abi[nr].Name != "" {
		return abi[nr].Name
	}
	return fmt.Sprintf("syscall_%d", nr)
}

// noResult is what a handler returns that has set the registers itself.
const noResult = linux.Errno(1 << 20)

// refuse makes entries of calls that fail always.
func refuse(e linux.Errno, note string, names ...string) []Call {
	var cs []Call
	for _, n := range names {
		cs = append(cs, Call{n, func(*Task, *Args) (uint64, error) { return 0, e }, Refused, note})
	}
	return cs
}

func refusedCalls() []Call {
	var cs []Call
	for _, r := range [][]Call{
		refuse(linux.EPERM, "the machine is not the program's to change", "acct", "adjtimex", "clock_adjtime", "clock_settime", "create_module", "delete_module",
			"finit_module", "init_module", "ioperm", "iopl", "kexec_file_load", "kexec_load", "nfsservctl", "pivot_root", "quotactl", "quotactl_fd", "reboot",
			"settimeofday", "swapoff", "swapon", "vhangup", "syslog"),
		refuse(linux.EPERM, "there are no namespaces", "setns"),
		refuse(linux.EPERM, "no program may look into others so", "bpf", "kcmp", "perf_event_open", "ptrace", "userfaultfd", "fanotify_init", "fanotify_mark", "lookup_dcookie"),
		refuse(linux.ENOSYS, "as on kernels without CONFIG_AIO, KEYS, POSIX_MQUEUE, SYSVIPC, IO_URING, LANDLOCK, SECCOMP filters", "add_key", "keyctl", "request_key",
			"io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents", "io_uring_setup", "io_uring_enter", "io_uring_register",
			"mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
			"msgget", "msgsnd", "msgrcv", "msgctl", "semget", "semop", "semctl", "semtimedop", "shmget", "shmat", "shmctl", "shmdt",
			"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "memfd_secret"),
		refuse(linux.ENOSYS, "obsolete on x86-64", "_sysctl", "afs_syscall", "epoll_ctl_old", "epoll_wait_old", "get_kernel_syms", "get_thread_area", "getpmsg",
			"putpmsg", "query_module", "security", "set_thread_area", "tuxcall", "uselib", "vserver", "sysfs", "ustat"),
		refuse(linux.EOPNOTSUPP, "no file system has handles", "name_to_handle_at", "open_by_handle_at"),
	} {
		cs = append(cs, r...)
	}
	return cs
}
