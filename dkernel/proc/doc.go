// Package proc is processes and threads: their tables, life and death, groups and sessions, credentials and limits, signals, timers,
// and the futex calls of threads. A user thread is a goroutine (package run), which owns its Thread: it calls the methods that are system
// calls, enters ring 3 with Thread.Regs, and asks Deliver before it does so whenever Interrupted says that there is something
// to do. All other goroutines only post work.
//
// A system call is one method. It takes decoded values and returns what the program is told; errors are linux.Errno. One that a
// signal interrupted returns linux.ERESTARTSYS or one of its kin, and the run loop stores that to RAX like any errno: Deliver
// turns it into EINTR or starts the call again.
//
// # Locks
//
// In this order:
//
//	System.tree    who is whose parent, in which group and session; zombies; the pid table's changes
//	Process.mu     threads, signals, stops, limits, timers of a process; of two processes never both
//	signal.Actions its own lock; so have users, the pid table and the names of uname(2)
//	the locks of package wait and of the injected clock
//
// No lock is held while user memory is touched or an interface given by others (vfs, Config's hooks but Kick) is called.
package proc
