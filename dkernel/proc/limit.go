package proc

import (
	"dinos/dkernel/cred"
	"dinos/dkernel/mm"
	"dinos/kernel/linux"
)

// Limits are the resource limits of a process.
type Limits [linux.RLIM_NLIMITS]linux.Rlimit

// DefaultLimits are those of init (INIT_RLIMITS), with what Debian's init gives to programs.
func DefaultLimits() (l Limits) {
	for i := range l {
		l[i] = linux.Rlimit{Cur: linux.RLIM_INFINITY, Max: linux.RLIM_INFINITY}
	}
	l[linux.RLIMIT_STACK].Cur = 8 << 20
	l[linux.RLIMIT_CORE].Cur = 0
	l[linux.RLIMIT_NPROC] = linux.Rlimit{Cur: defaultMaxThreads / 2, Max: defaultMaxThreads / 2}
	l[linux.RLIMIT_NOFILE] = linux.Rlimit{Cur: 1024, Max: 1 << 20}
	l[linux.RLIMIT_MEMLOCK] = linux.Rlimit{Cur: 8 << 20, Max: 8 << 20}
	l[linux.RLIMIT_SIGPENDING] = linux.Rlimit{Cur: defaultMaxThreads / 2, Max: defaultMaxThreads / 2}
	l[linux.RLIMIT_MSGQUEUE] = linux.Rlimit{Cur: 819200, Max: 819200}
	l[linux.RLIMIT_NICE] = linux.Rlimit{}
	l[linux.RLIMIT_RTPRIO] = linux.Rlimit{}
	return l
}

// Limit returns a limit. Anybody may call it.
func (p *Process) Limit(resource int) linux.Rlimit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limits[resource]
}

// Limits are the limits that address spaces are made with. Anybody may call it.
func (p *Process) Limits() mm.Limits {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.memory()
}

func (p *Process) memory() mm.Limits {
	l := &p.limits
	return mm.Limits{AS: l[linux.RLIMIT_AS].Cur, Data: l[linux.RLIMIT_DATA].Cur, Stack: l[linux.RLIMIT_STACK].Cur,
		MemLock: l[linux.RLIMIT_MEMLOCK].Cur, IPCLock: p.Cred().Can(cred.IPC_LOCK)}
}

// maxOpen is the highest RLIMIT_NOFILE: fs.nr_open.
const maxOpen = 1 << 20

// Prlimit is prlimit64(2), getrlimit(2) and setrlimit(2): id 0 is the caller; n nil: ask only. linux.EINVAL, linux.EPERM, linux.ESRCH.
func (t *Thread) Prlimit(id int32, resource int, n *linux.Rlimit) (old linux.Rlimit, err error) {
	if uint(resource) >= linux.RLIM_NLIMITS {
		return old, linux.EINVAL
	}
	p := t.proc
	if id != 0 && id != p.id.n {
		u := t.sys.Thread(id)
		if u == nil {
			return old, linux.ESRCH
		}
		p = u.proc
		c, to := t.Cred(), u.Cred()
		same := c.UID == to.EUID && c.UID == to.SUID && c.UID == to.UID && c.GID == to.EGID && c.GID == to.SGID && c.GID == to.GID
		if p != t.proc && !same && !c.Can(cred.SYS_RESOURCE) {
			return old, linux.EPERM
		}
	}
	if n != nil {
		if n.Cur > n.Max {
			return old, linux.EINVAL
		}
		if resource == linux.RLIMIT_NOFILE && n.Max > maxOpen {
			return old, linux.EPERM
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old = p.limits[resource]
	if n == nil {
		return old, nil
	}
	if n.Max > old.Max && !t.Can(cred.SYS_RESOURCE) {
		return old, linux.EPERM
	}
	p.limits[resource] = *n
	switch resource {
	case linux.RLIMIT_NOFILE, linux.RLIMIT_FSIZE:
		p.each(func(u *Thread) {
			if u != t {
				u.work.Or(workCaller)
			}
		})
		if p == t.proc {
			t.work.Or(workCaller)
		}
	case linux.RLIMIT_AS, linux.RLIMIT_DATA, linux.RLIMIT_STACK, linux.RLIMIT_MEMLOCK:
		if m := p.space.Load(); m != nil {
			m.SetLimits(p.memory())
		}
	case linux.RLIMIT_CPU:
		p.itimers.warned = 0
		p.armCPU()
	}
	return old, nil
}
