package programs

import (
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"dinos/dkernel/frame"
	"dinos/dkernel/mm"
	"dinos/dkernel/proc"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/procfs"
	"dinos/kernel/linux"
	"dinos/kernel/machine"
)

// procMachine is the machine as /proc shows it.
type procMachine struct {
	p     *Programs
	m     *machine.Machine
	clock proc.Clock
	total int64 // bytes of memory that programs may get at most
	cpus  []procfs.CPU
	load  loadAverage
}

// CPUs implements procfs.Machine.
func (m *procMachine) CPUs() []procfs.CPU { return m.cpus }

// Times implements procfs.Machine. What a processor is not idle is reported as the programs' time.
func (m *procMachine) Times() []procfs.CPUTimes {
	now, idle := int64(machine.Now()), machine.IdleTimes()
	list := make([]procfs.CPUTimes, len(m.cpus))
	for i := range list {
		if i < len(idle) {
			list[i] = procfs.CPUTimes{User: max(now-idle[i], 0), Idle: idle[i]}
		}
	}
	return list
}

// Memory implements procfs.Machine.
func (m *procMachine) Memory() procfs.Memory {
	used := int64(m.p.Frames.Stats().Used) * frame.Size
	committed, limit := m.p.MM.Committed()
	free := max(m.total-used, 0)
	return procfs.Memory{Total: m.total, Free: free, Available: free, CommitLimit: int64(limit) * frame.Size, Committed: int64(committed) * frame.Size}
}

// Activity implements procfs.Machine.
func (m *procMachine) Activity() procfs.Activity {
	st := m.p.Procs.Stats()
	up := m.clock.Monotonic()
	l := m.load.now()
	a := procfs.Activity{Uptime: up, Boot: m.clock.Realtime() - up, Running: 1, Tasks: st.Threads, Forks: uint64(st.Forks)}
	for i, v := range l {
		a.Load[i] = float64(v) / (1 << 16)
	}
	m.p.Procs.Processes(1, func(p *proc.Process) bool {
		a.LastPID = max(a.LastPID, p.PID())
		return true
	})
	return a
}

// CommandLine implements procfs.Machine.
func (m *procMachine) CommandLine() string { return m.m.Boot.CommandLine }

// Uname implements procfs.Machine.
func (m *procMachine) Uname() [6]string {
	u := m.p.Procs.Uname()
	return [6]string{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname}
}

// processors describes the first n.
func processors(n int) []procfs.CPU {
	d := machine.ReadProcessor()
	_, hz := machine.Stamp()
	list := make([]procfs.CPU, n)
	for i := range list {
		list[i] = procfs.CPU{ID: i, Vendor: d.Vendor, Model: d.Model, Family: d.Family, Number: d.Number, Stepping: d.Stepping, KHz: int64(hz / 1000),
			Package: 0, Core: i, Flags: d.Flags, PhysBits: d.PhysBits, VirtBits: d.VirtBits}
	}
	return list
}

// loadAverage are the exponentially damped averages of how many processors are busy, as the load averages of Linux
// (kernel/sched/loadavg.c) are those of threads that run or want to. It is brought up to date when it is read.
type loadAverage struct {
	mu   sync.Mutex
	last time.Duration
	idle int64
	avg  [3]float64
}

// loadPeriods are the time constants.
var loadPeriods = [3]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

// now returns the averages times 65536.
func (l *loadAverage) now() (v [3]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, list := machine.Now(), machine.IdleTimes()
	var idle int64
	for _, t := range list {
		idle += t
	}
	dt := now - l.last
	if dt > time.Second {
		busy := max(float64(len(list))-float64(idle-l.idle)/float64(dt), 0)
		for i, period := range loadPeriods {
			keep := math.Exp(-float64(dt) / float64(period))
			l.avg[i] = l.avg[i]*keep + busy*(1-keep)
		}
		l.last, l.idle = now, idle
	}
	for i, a := range l.avg {
		v[i] = uint64(a * (1 << 16))
	}
	return v
}

// sysctls are the settings that change something.
func sysctls(y *mm.System) []procfs.Sysctl {
	number := func(path string, get func() int, set func(int) error) procfs.Sysctl {
		return procfs.Sysctl{Path: path, Get: func() string { return strconv.Itoa(get()) }, Set: func(_ *vfs.Caller, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil {
				return linux.EINVAL
			}
			return set(n)
		}}
	}
	return []procfs.Sysctl{
		number("vm/overcommit_memory", func() int { m, _ := y.Overcommit(); return m }, func(n int) error {
			_, ratio := y.Overcommit()
			return y.SetOvercommit(n, ratio)
		}),
		number("vm/overcommit_ratio", func() int { _, r := y.Overcommit(); return r }, func(n int) error {
			mode, _ := y.Overcommit()
			return y.SetOvercommit(mode, n)
		}),
	}
}

// newProc makes /proc.
func (p *Programs) newProc(m *procMachine) *vfs.FS {
	kinds := []string{"proc", "sysfs", "devtmpfs", "devpts", "rootfs", "host"}
	for k := range p.Kernel.Exec.Types {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return procfs.New(p.VFS, procfs.Config{Machine: m, Processes: p.Procs.Proc(), FileSystems: kinds, Sysctls: sysctls(p.MM), Random: machine.Random}, nil)
}
