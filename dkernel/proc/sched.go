package proc

import (
	"math/bits"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// MaxCPUs is the room of a CPUSet.
const MaxCPUs = 1024

// CPUSet is a cpu_set_t: bit n%64 of word n/64 for CPU n.
type CPUSet [MaxCPUs / 64]uint64

// Has reports whether CPU n is in the set.
func (c *CPUSet) Has(n int) bool { return uint(n) < MaxCPUs && c[n/64]>>(n%64)&1 != 0 }

// Add puts CPU n, below MaxCPUs, in the set.
func (c *CPUSet) Add(n int) { c[n/64] |= 1 << (n % 64) }

// Count is how many CPUs are in the set.
func (c *CPUSet) Count() (n int) {
	for _, w := range c {
		n += bits.OnesCount64(w)
	}
	return n
}

func (c CPUSet) and(d CPUSet) CPUSet {
	for i := range c {
		c[i] &= d[i]
	}
	return c
}

// sched is what the scheduling calls set. Goroutines have no priorities: it is kept, checked and told, and what of it means something
// to the run loop, that reads.
type sched struct {
	policy  int
	nice    int
	rtprio  int
	reset   bool // SCHED_RESET_ON_FORK
	cpus    CPUSet
	ioprio  int
	utilMin uint32
	utilMax uint32
}

func newSched(cpus CPUSet) sched { return sched{cpus: cpus, utilMax: 1024} }

func (s sched) fork() sched {
	if s.reset {
		s.reset = false
		if s.policy == linux.SCHED_FIFO || s.policy == linux.SCHED_RR {
			s.policy, s.rtprio, s.nice = linux.SCHED_OTHER, 0, 0
		} else if s.nice < 0 {
			s.nice = 0
		}
	}
	return s
}

// scheduling is what the scheduling calls have set at this moment.
func (t *Thread) scheduling() sched {
	t.proc.mu.Lock()
	defer t.proc.mu.Unlock()
	return t.sched
}

// thread finds the thread that a scheduling call names: itself for 0.
func (t *Thread) thread(id int32) (*Thread, error) {
	if id < 0 {
		return nil, linux.EINVAL
	}
	if id == 0 || id == t.TID() {
		return t, nil
	}
	if u := t.sys.Thread(id); u != nil {
		return u, nil
	}
	return nil, linux.ESRCH
}

// owns reports whether t may change u's scheduling.
func (t *Thread) owns(u *Thread) bool {
	c, to := t.Cred(), u.Cred()
	return c.EUID == to.UID || c.EUID == to.EUID || c.Can(cred.SYS_NICE)
}

// SchedSetaffinity is sched_setaffinity(2). linux.EINVAL: no CPU that there is; linux.EPERM, linux.ESRCH.
func (t *Thread) SchedSetaffinity(id int32, cpus CPUSet) error {
	u, err := t.thread(id)
	if err != nil {
		return linux.ESRCH
	}
	if u != t && !t.owns(u) {
		return linux.EPERM
	}
	cpus = cpus.and(t.sys.cfg.CPUs)
	if cpus == (CPUSet{}) {
		return linux.EINVAL
	}
	u.proc.mu.Lock()
	u.sched.cpus = cpus
	u.proc.mu.Unlock()
	if f := t.sys.cfg.Affinity; f != nil {
		f(u, cpus)
	}
	return nil
}

// SchedGetaffinity is sched_getaffinity(2). linux.ESRCH.
func (t *Thread) SchedGetaffinity(id int32) (CPUSet, error) {
	u, err := t.thread(id)
	if err != nil {
		return CPUSet{}, linux.ESRCH
	}
	return u.Affinity(), nil
}

// Affinity are the CPUs that the thread may run on. Anybody may call it.
func (t *Thread) Affinity() CPUSet { return t.scheduling().cpus }

// CPUs are the CPUs of the system.
func (s *System) CPUs() CPUSet { return s.cfg.CPUs }

// SchedPriorityRange is sched_get_priority_min(2) and sched_get_priority_max(2). linux.EINVAL.
func SchedPriorityRange(policy int) (low, high int, err error) {
	switch policy {
	case linux.SCHED_FIFO, linux.SCHED_RR:
		return 1, 99, nil
	case linux.SCHED_OTHER, linux.SCHED_BATCH, linux.SCHED_IDLE, linux.SCHED_DEADLINE:
		return 0, 0, nil
	}
	return 0, 0, linux.EINVAL
}

// SchedSetscheduler is sched_setscheduler(2); policy may have SCHED_RESET_ON_FORK. linux.EINVAL, linux.EPERM, linux.ESRCH.
func (t *Thread) SchedSetscheduler(id int32, policy, priority int) error {
	if policy < 0 {
		return linux.EINVAL
	}
	u, err := t.thread(id)
	if err != nil {
		return err
	}
	n := u.scheduling()
	n.reset = policy&linux.SCHED_RESET_ON_FORK != 0
	n.policy, n.rtprio = policy&^linux.SCHED_RESET_ON_FORK, priority
	return t.setSched(u, n)
}

// SchedSetparam is sched_setparam(2).
func (t *Thread) SchedSetparam(id int32, priority int) error {
	u, err := t.thread(id)
	if err != nil {
		return err
	}
	n := u.scheduling()
	n.rtprio = priority
	return t.setSched(u, n)
}

// setSched checks and makes a change of policy, priority or nice value (__sched_setscheduler).
func (t *Thread) setSched(u *Thread, n sched) error {
	low, high, err := SchedPriorityRange(n.policy)
	if err != nil || n.policy == linux.SCHED_DEADLINE {
		return linux.EINVAL
	}
	if n.rtprio < low || n.rtprio > high {
		return linux.EINVAL
	}
	p := u.proc
	p.mu.Lock()
	defer p.mu.Unlock()
	old := u.sched
	if !t.Can(cred.SYS_NICE) {
		limit := int(min(p.limits[linux.RLIMIT_RTPRIO].Cur, 99))
		real := n.policy == linux.SCHED_FIFO || n.policy == linux.SCHED_RR
		switch {
		case !t.owns(u),
			real && n.policy != old.policy && limit == 0,
			real && n.rtprio > old.rtprio && n.rtprio > limit,
			old.policy == linux.SCHED_IDLE && n.policy != linux.SCHED_IDLE && !niceAllowed(p, old.nice),
			n.nice < old.nice && !niceAllowed(p, n.nice),
			old.reset && !n.reset:
			return linux.EPERM
		}
	}
	u.sched.policy, u.sched.rtprio, u.sched.reset, u.sched.nice = n.policy, n.rtprio, n.reset, n.nice
	u.sched.utilMin, u.sched.utilMax = n.utilMin, n.utilMax
	return nil
}

// niceAllowed reports whether RLIMIT_NICE allows the nice value. mu is locked.
func niceAllowed(p *Process, nice int) bool {
	return uint64(20-nice) <= p.limits[linux.RLIMIT_NICE].Cur
}

// SchedGetscheduler is sched_getscheduler(2) and sched_getparam(2). linux.ESRCH, linux.EINVAL.
func (t *Thread) SchedGetscheduler(id int32) (policy, priority int, err error) {
	u, err := t.thread(id)
	if err != nil {
		return 0, 0, err
	}
	s := u.scheduling()
	policy = s.policy
	if s.reset {
		policy |= linux.SCHED_RESET_ON_FORK
	}
	return policy, s.rtprio, nil
}

// SchedRRGetInterval is sched_rr_get_interval(2), in ns. linux.ESRCH, linux.EINVAL.
func (t *Thread) SchedRRGetInterval(id int32) (int64, error) {
	policy, _, err := t.SchedGetscheduler(id)
	switch policy &^ linux.SCHED_RESET_ON_FORK {
	case linux.SCHED_FIFO, linux.SCHED_IDLE:
		return 0, err
	case linux.SCHED_RR:
		return 100_000_000, err
	}
	return 3_000_000, err
}

// targets calls f for the threads that getpriority(2), setpriority(2) and their ioprio kin name. first is the value of which for
// processes: the others follow. linux.EINVAL.
func (t *Thread) targets(which, first int, id int32, f func(*Thread)) error {
	s := t.sys
	switch which - first {
	case 0:
		if u, err := t.thread(id); err == nil {
			f(u)
		}
	case 1:
		if id == 0 {
			id = t.proc.Group()
		}
		s.tree.RLock()
		defer s.tree.RUnlock()
		if g := s.findGroup(id); g != nil {
			for p := g.members; p != nil; p = p.nextInGroup {
				p.collect(f)
			}
		}
	case 2:
		uid := uint32(id)
		if id == 0 {
			uid = t.Cred().UID
		}
		s.Processes(2, func(p *Process) bool {
			if p.Cred().UID == uid {
				p.collect(f)
			}
			return true
		})
	default:
		return linux.EINVAL
	}
	return nil
}

// collect calls f for all threads of p, without its lock.
func (p *Process) collect(f func(*Thread)) {
	for _, t := range p.Threads() {
		f(t)
	}
}

// Threads returns the threads of p that have not ended, the leader first. Anybody may call it.
func (p *Process) Threads() []*Thread {
	p.mu.Lock()
	defer p.mu.Unlock()
	ts := make([]*Thread, 0, p.nthreads)
	p.each(func(t *Thread) { ts = append(ts, t) })
	return ts
}

// Getpriority is getpriority(2): the lowest nice value, as 20 minus it. linux.EINVAL, linux.ESRCH.
func (t *Thread) Getpriority(which int, id int32) (int, error) {
	best := 0
	err := t.targets(which, linux.PRIO_PROCESS, id, func(u *Thread) {
		best = max(best, 20-u.scheduling().nice)
	})
	if err == nil && best == 0 {
		err = linux.ESRCH
	}
	return best, err
}

// Setpriority is setpriority(2). linux.EINVAL, linux.ESRCH, linux.EPERM, linux.EACCES.
func (t *Thread) Setpriority(which int, id int32, nice int) error {
	nice = max(-20, min(19, nice))
	var res error = linux.ESRCH
	err := t.targets(which, linux.PRIO_PROCESS, id, func(u *Thread) {
		c, to := t.Cred(), u.Cred()
		p := u.proc
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case c.EUID != to.UID && c.EUID != to.EUID && !c.Can(cred.SYS_NICE):
			res = linux.EPERM
		case nice < u.sched.nice && !niceAllowed(p, nice) && !c.Can(cred.SYS_NICE):
			res = linux.EACCES
		default:
			if res == linux.ESRCH {
				res = nil
			}
			u.sched.nice = nice
		}
	})
	if err != nil {
		return err
	}
	return res
}

// IoprioSet is ioprio_set(2). linux.EINVAL, linux.ESRCH, linux.EPERM.
func (t *Thread) IoprioSet(which int, id int32, prio int) error {
	class := prio >> 13
	switch class {
	case linux.IOPRIO_CLASS_RT:
		if !t.Can(cred.SYS_ADMIN) && !t.Can(cred.SYS_NICE) {
			return linux.EPERM
		}
		fallthrough
	case linux.IOPRIO_CLASS_BE:
	case linux.IOPRIO_CLASS_IDLE:
	case linux.IOPRIO_CLASS_NONE:
		if prio&0x1fff&7 != 0 {
			return linux.EINVAL
		}
	default:
		return linux.EINVAL
	}
	var res error = linux.ESRCH
	err := t.targets(which, linux.IOPRIO_WHO_PROCESS, id, func(u *Thread) {
		if !t.owns(u) {
			res = linux.EPERM
			return
		}
		if res == linux.ESRCH {
			res = nil
		}
		u.proc.mu.Lock()
		u.sched.ioprio = prio
		u.proc.mu.Unlock()
	})
	if err != nil {
		return err
	}
	return res
}

// IoprioGet is ioprio_get(2). linux.EINVAL, linux.ESRCH.
func (t *Thread) IoprioGet(which int, id int32) (int, error) {
	best, found := 0, false
	err := t.targets(which, linux.IOPRIO_WHO_PROCESS, id, func(u *Thread) {
		x := u.scheduling().ioprio
		// The lower class is the better one, but none is worst.
		if !found || x != 0 && (best == 0 || x < best) {
			best = x
		}
		found = true
	})
	if err == nil && !found {
		err = linux.ESRCH
	}
	return best, err
}
