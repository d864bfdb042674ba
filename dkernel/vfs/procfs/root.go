package procfs

import (
	"fmt"
	"strconv"
	"strings"

	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/pseudo"
	"dinos/kernel/linux"
)

// proc is an instance of the file system.
type proc struct {
	c     Config
	fs    *pseudo.FS
	files []pidFile
}

// rootDir is the root: fixed names, then processes by their pid.
type rootDir struct {
	*pseudo.Map
	p *proc
}

// New makes a /proc. Extra, if not nil, adds files to its root (net).
func New(v *vfs.VFS, c Config, extra func(root *pseudo.Map)) *vfs.FS {
	p := &proc{c: c, files: pidFiles()}
	m := &pseudo.Map{}
	gen := func(name string, show func(b []byte) []byte) { m.Add(name, pseudo.Gen(show)) }
	m.Add("self", &pseudo.Node{Link: self})
	m.Add("thread-self", &pseudo.Node{Link: threadSelf})
	gen("cmdline", func(b []byte) []byte { return append(append(b, p.c.Machine.CommandLine()...), '\n') })
	gen("cpuinfo", p.cpuinfo)
	m.Add("diskstats", pseudo.Text(""))
	gen("filesystems", p.filesystems)
	gen("loadavg", p.loadavg)
	gen("meminfo", p.meminfo)
	m.Add("mounts", &pseudo.Node{Link: func(*vfs.Caller) (string, error) { return "self/mounts", nil }})
	m.Add("partitions", pseudo.Text("major minor  #blocks  name\n\n"))
	gen("stat", p.stat)
	m.Add("swaps", pseudo.Text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"))
	p.sysctls(v, m.Sub("sys"))
	gen("uptime", p.uptime)
	gen("version", p.version)
	gen("vmstat", p.vmstat)
	if extra != nil {
		extra(m)
	}
	p.fs = pseudo.New(v, "proc", linux.PROC_SUPER_MAGIC, &pseudo.Node{Perm: 0o555, Dir: rootDir{m, p}})
	return p.fs.FS
}

func self(c *vfs.Caller) (string, error) {
	if c.PID == 0 {
		return "", linux.ENOENT
	}
	return strconv.Itoa(int(c.PID)), nil
}

func threadSelf(c *vfs.Caller) (string, error) {
	if c.PID == 0 {
		return "", linux.ENOENT
	}
	return fmt.Sprintf("%d/task/%d", c.PID, c.TID), nil
}

// number reads a pid or a descriptor as a name: no sign, no leading zero.
func number(name string) (int32, bool) {
	if name == "" || name[0] < '0' || name[0] > '9' || name[0] == '0' && len(name) > 1 {
		return 0, false
	}
	n, err := strconv.ParseInt(name, 10, 32)
	return int32(n), err == nil
}

// Find implements pseudo.Dir. The entry of a thread that leads no process is there, but not listed, as on Linux.
func (d rootDir) Find(c *vfs.Caller, name string) (*pseudo.Node, error) {
	pid, ok := number(name)
	if !ok {
		return d.Map.Find(c, name)
	}
	x := d.p.c.Processes.Process(pid)
	if x == nil {
		x = d.p.c.Processes.Thread(pid)
	}
	if x == nil {
		return nil, linux.ENOENT
	}
	return d.p.dir(x, pid, false), nil
}

// Each implements pseudo.Dir. The position of a process is its pid, behind those of the fixed names.
func (d rootDir) Each(c *vfs.Caller, from int64, emit func(pseudo.Entry) bool) error {
	n := d.Len()
	if from < n {
		more := true
		if err := d.Map.Each(c, from, func(e pseudo.Entry) bool { more = emit(e); return more }); err != nil || !more {
			return err
		}
		from = n
	}
	for pid := d.p.c.Processes.Next(int32(min(from-n, 1<<30))); pid != 0; pid = d.p.c.Processes.Next(pid + 1) {
		if !emit(pseudo.Entry{Name: strconv.Itoa(int(pid)), Type: linux.DT_DIR, Ino: ino(pid, 0), Next: n + int64(pid) + 1}) {
			break
		}
	}
	return nil
}

func (p *proc) cpuinfo(b []byte) []byte {
	cpus := p.c.Machine.CPUs()
	for _, c := range cpus {
		b = fmt.Appendf(b, "processor\t: %d\nvendor_id\t: %s\ncpu family\t: %d\nmodel\t\t: %d\nmodel name\t: %s\nstepping\t: %d\n",
			c.ID, c.Vendor, c.Family, c.Number, c.Model, c.Stepping)
		b = fmt.Appendf(b, "cpu MHz\t\t: %d.%03d\ncache size\t: %d KB\nphysical id\t: %d\nsiblings\t: %d\ncore id\t\t: %d\ncpu cores\t: %d\napicid\t\t: %d\n",
			c.KHz/1000, c.KHz%1000, c.CacheKB, c.Package, len(cpus), c.Core, len(cpus), c.ID)
		b = fmt.Appendf(b, "fpu\t\t: yes\nfpu_exception\t: yes\nwp\t\t: yes\nflags\t\t: %s\nbogomips\t: %d.%02d\nclflush size\t: 64\ncache_alignment\t: 64\n",
			c.Flags, c.KHz/500, c.KHz/5%100)
		b = fmt.Appendf(b, "address sizes\t: %d bits physical, %d bits virtual\npower management:\n\n", c.PhysBits, c.VirtBits)
	}
	return b
}

func (p *proc) filesystems(b []byte) []byte {
	for _, f := range p.c.FileSystems {
		if dev, ok := strings.CutPrefix(f, "dev "); ok {
			b = fmt.Appendf(b, "\t%s\n", dev)
		} else {
			b = fmt.Appendf(b, "nodev\t%s\n", f)
		}
	}
	return b
}

func (p *proc) loadavg(b []byte) []byte {
	a := p.c.Machine.Activity()
	return fmt.Appendf(b, "%.2f %.2f %.2f %d/%d %d\n", a.Load[0], a.Load[1], a.Load[2], a.Running, a.Tasks, a.LastPID)
}

func (p *proc) meminfo(b []byte) []byte {
	m := p.c.Machine.Memory()
	for _, f := range []struct {
		name  string
		bytes int64
	}{
		{"MemTotal", m.Total}, {"MemFree", m.Free}, {"MemAvailable", m.Available}, {"Buffers", m.Buffers}, {"Cached", m.Cached},
		{"SwapCached", 0}, {"Active", m.Active}, {"Inactive", m.Inactive}, {"Unevictable", 0}, {"Mlocked", 0}, {"SwapTotal", 0}, {"SwapFree", 0},
		{"Dirty", 0}, {"Writeback", 0}, {"AnonPages", m.Anon}, {"Mapped", m.Mapped}, {"Shmem", m.Shmem}, {"KReclaimable", 0},
		{"Slab", m.Slab}, {"SReclaimable", 0}, {"SUnreclaim", m.Slab}, {"KernelStack", m.Stack}, {"PageTables", m.PageTables},
		{"CommitLimit", m.CommitLimit}, {"Committed_AS", m.Committed}, {"VmallocTotal", 0}, {"VmallocUsed", 0}, {"VmallocChunk", 0},
		{"AnonHugePages", 0}, {"ShmemHugePages", 0},
	} {
		b = fmt.Appendf(b, "%-15s %8d kB\n", f.name+":", f.bytes/1024)
	}
	return append(b, "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\nHugepagesize:       2048 kB\nHugetlb:               0 kB\n"...)
}

// ticks turns ns into the unit of proc, 1/100 s (USER_HZ).
func ticks(ns int64) int64 { return ns / 1e7 }

func (p *proc) stat(b []byte) []byte {
	times, cpus, a := p.c.Machine.Times(), p.c.Machine.CPUs(), p.c.Machine.Activity()
	var sum CPUTimes
	for _, t := range times {
		sum.User, sum.Nice, sum.System, sum.Idle = sum.User+t.User, sum.Nice+t.Nice, sum.System+t.System, sum.Idle+t.Idle
		sum.IOWait, sum.IRQ, sum.SoftIRQ, sum.Steal = sum.IOWait+t.IOWait, sum.IRQ+t.IRQ, sum.SoftIRQ+t.SoftIRQ, sum.Steal+t.Steal
	}
	line := func(name string, t CPUTimes) {
		b = fmt.Appendf(b, "%s %d %d %d %d %d %d %d %d 0 0\n", name, ticks(t.User), ticks(t.Nice), ticks(t.System), ticks(t.Idle), ticks(t.IOWait), ticks(t.IRQ), ticks(t.SoftIRQ), ticks(t.Steal))
	}
	line("cpu ", sum)
	for i, t := range times {
		if i < len(cpus) {
			line("cpu"+strconv.Itoa(cpus[i].ID), t)
		}
	}
	return fmt.Appendf(b, "intr %d\nctxt %d\nbtime %d\nprocesses %d\nprocs_running %d\nprocs_blocked %d\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
		a.Interrupts, a.ContextSwitches, a.Boot/1e9, a.Forks, a.Running, a.Blocked)
}

func (p *proc) uptime(b []byte) []byte {
	var idle int64
	for _, t := range p.c.Machine.Times() {
		idle += t.Idle
	}
	up := p.c.Machine.Activity().Uptime
	return fmt.Appendf(b, "%d.%02d %d.%02d\n", up/1e9, up/1e7%100, idle/1e9, idle/1e7%100)
}

func (p *proc) version(b []byte) []byte {
	u := p.c.Machine.Uname()
	return fmt.Appendf(b, "%s version %s (dinos) %s\n", u[0], u[2], u[3])
}

func (p *proc) vmstat(b []byte) []byte {
	m, a := p.c.Machine.Memory(), p.c.Machine.Activity()
	const page = 4096
	return fmt.Appendf(b, "nr_free_pages %d\nnr_inactive_anon 0\nnr_active_anon %d\nnr_inactive_file 0\nnr_active_file 0\nnr_anon_pages %d\nnr_mapped %d\nnr_file_pages %d\nnr_dirty 0\nnr_writeback 0\nnr_shmem %d\nnr_page_table_pages %d\nnr_slab_reclaimable 0\nnr_slab_unreclaimable %d\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault %d\npgmajfault %d\noom_kill 0\n",
		m.Free/page, m.Anon/page, m.Anon/page, m.Mapped/page, m.Cached/page, m.Shmem/page, m.PageTables/page, m.Slab/page, a.PageFaults, a.MajorFaults)
}
