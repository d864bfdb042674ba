package procfs

import (
	"fmt"
	"strings"

	"dinos/dkernel/cred"
	"dinos/dkernel/mm"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

const kbPerPage = 4

// stat is /proc/PID/stat: 52 fields (proc_pid_stat(5)). Addresses are 0 for those who may not trace the process.
func (v *view) stat(c *vfs.Caller, b []byte) ([]byte, error) {
	var i Info
	if !v.x.Info(&i) {
		return nil, linux.ESRCH
	}
	var m mm.Stat
	if s := v.x.Memory(); s != nil {
		m = s.Stat()
	}
	if v.mayTrace(c) != nil {
		i.StartCode, i.EndCode, i.StartStack, i.SP, i.IP = 1, 1, 0, 0, 0
		i.StartData, i.EndData, i.StartBreak, i.ArgStart, i.ArgEnd, i.EnvStart, i.EnvEnd, i.ExitCode = 0, 0, 0, 0, 0, 0, 0, 0
	}
	b = fmt.Appendf(b, "%d (%s) %c %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d 0 %d ", v.id, i.Comm, i.State, i.PPID, i.Group, i.Session,
		int32(i.TTY), i.TTYGroup, i.Flags, i.MinorFaults, i.ChildMinor, i.MajorFaults, i.ChildMajor, ticks(i.User), ticks(i.System),
		ticks(i.ChildUser), ticks(i.ChildSystem), i.Priority, i.Nice, i.Threads, ticks(i.Start))
	return fmt.Appendf(b, "%d %d %d %d %d %d %d %d %d %d %d %d 0 0 0 %d %d %d %d 0 0 0 %d %d %d %d %d %d %d %d\n", m.Total*4096, m.Own+m.File,
		v.x.Limits()[linux.RLIMIT_RSS].Cur, i.StartCode, i.EndCode, i.StartStack, i.SP, i.IP, int32(i.Pending), int32(i.Blocked),
		int32(i.Ignored), int32(i.Caught), i.ExitSignal, i.LastCPU, i.RTPriority, i.Policy,
		i.StartData, i.EndData, i.StartBreak, i.ArgStart, i.ArgEnd, i.EnvStart, i.EnvEnd, i.ExitCode), nil
}

func (v *view) statm(_ *vfs.Caller, b []byte) ([]byte, error) {
	s := v.x.Memory()
	if s == nil {
		return append(b, "0 0 0 0 0 0 0\n"...), nil
	}
	m := s.Stat()
	return fmt.Appendf(b, "%d %d %d %d 0 %d 0\n", m.Total, m.Own+m.File, m.File, m.Exec, m.Data+m.Stack), nil
}

// stateNames are those of status.
func stateName(s byte) string {
	switch s {
	case 'R':
		return "R (running)"
	case 'S':
		return "S (sleeping)"
	case 'D':
		return "D (disk sleep)"
	case 'T':
		return "T (stopped)"
	case 't':
		return "t (tracing stop)"
	case 'Z':
		return "Z (zombie)"
	}
	return "X (dead)"
}

// escape writes a name as status and mounts do: what would break a line or a field becomes octal.
func escape(s, special string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(special, s[i]) >= 0 {
			fmt.Fprintf(&b, "\\%03o", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// status is /proc/PID/status.
func (v *view) status(_ *vfs.Caller, b []byte) ([]byte, error) {
	var i Info
	if !v.x.Info(&i) {
		return nil, linux.ESRCH
	}
	cr := v.x.Cred()
	if cr == nil {
		cr = &cred.Cred{}
	}
	umask, size := uint32(0), 0
	if f := v.x.FS(); f != nil {
		umask = f.Umask()
	}
	if f := v.x.Files(); f != nil {
		size = f.Size()
	}
	b = fmt.Appendf(b, "Name:\t%s\nUmask:\t%04o\nState:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t%d\n",
		escape(i.Comm, "\n\\"), umask, stateName(i.State), i.PID, v.id, i.PPID, i.Tracer)
	b = fmt.Appendf(b, "Uid:\t%d\t%d\t%d\t%d\nGid:\t%d\t%d\t%d\t%d\nFDSize:\t%d\nGroups:\t", cr.UID, cr.EUID, cr.SUID, cr.FSUID, cr.GID, cr.EGID, cr.SGID, cr.FSGID, size)
	for _, g := range cr.Groups {
		b = fmt.Appendf(b, "%d ", g)
	}
	b = fmt.Appendf(b, "\nNStgid:\t%d\nNSpid:\t%d\nNSpgid:\t%d\nNSsid:\t%d\nKthread:\t0\n", i.PID, v.id, i.Group, i.Session)
	if s := v.x.Memory(); s != nil {
		b = memoryStatus(b, s.Stat())
	}
	b = fmt.Appendf(b, "CoreDumping:\t0\nTHP_enabled:\t0\nThreads:\t%d\nSigQ:\t%d/%d\nSigPnd:\t%016x\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\n",
		i.Threads, i.Queued, i.QueueLimit, i.Pending, i.SharedPending, i.Blocked, i.Ignored, i.Caught)
	nnp := 0
	if i.NoNewPrivs {
		nnp = 1
	}
	b = fmt.Appendf(b, "CapInh:\t%016x\nCapPrm:\t%016x\nCapEff:\t%016x\nCapBnd:\t%016x\nCapAmb:\t%016x\nNoNewPrivs:\t%d\nSeccomp:\t0\nSeccomp_filters:\t0\n",
		uint64(cr.Inheritable), uint64(cr.Permitted), uint64(cr.Effective), uint64(cr.Bounding), uint64(cr.Ambient), nnp)
	return fmt.Appendf(b, "Cpus_allowed:\t%s\nCpus_allowed_list:\t%s\nMems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t%d\n",
		mask(i.CPUs), list(i.CPUs), i.Voluntary, i.Involuntary), nil
}

func memoryStatus(b []byte, m mm.Stat) []byte {
	rss := m.Own + m.File
	for _, f := range []struct {
		name  string
		pages uint64
	}{{"VmPeak", m.Total}, {"VmSize", m.Total}, {"VmLck", m.Locked}, {"VmPin", 0}, {"VmHWM", max(m.Peak, rss)}, {"VmRSS", rss}, {"RssAnon", m.Own},
		{"RssFile", m.File}, {"RssShmem", 0}, {"VmData", m.Data}, {"VmStk", m.Stack}, {"VmExe", m.Exec}, {"VmLib", 0}, {"VmPTE", 0}, {"VmSwap", 0}} {
		b = fmt.Appendf(b, "%s:\t%8d kB\n", f.name, f.pages*kbPerPage)
	}
	return append(b, "HugetlbPages:\t       0 kB\n"...)
}

// mask writes a set of CPUs as words of 32 bits in hexadecimal, highest first.
func mask(set []uint64) string {
	var w []uint32
	for _, x := range set {
		w = append(w, uint32(x), uint32(x>>32))
	}
	for len(w) > 1 && w[len(w)-1] == 0 {
		w = w[:len(w)-1]
	}
	if len(w) == 0 {
		return "0"
	}
	s := fmt.Sprintf("%x", w[len(w)-1])
	for k := len(w) - 2; k >= 0; k-- {
		s += fmt.Sprintf(",%08x", w[k])
	}
	return s
}

// list writes a set of CPUs as "0-3,5".
func list(set []uint64) string {
	has := func(i int) bool { return i < len(set)*64 && set[i/64]>>(i%64)&1 != 0 }
	var out []string
	for i := 0; i < len(set)*64; i++ {
		if !has(i) {
			continue
		}
		from := i
		for has(i + 1) {
			i++
		}
		if from == i {
			out = append(out, fmt.Sprint(i))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", from, i))
		}
	}
	return strings.Join(out, ",")
}

// limits is /proc/PID/limits.
func (v *view) limits(_ *vfs.Caller, b []byte) ([]byte, error) {
	l := v.x.Limits()
	b = fmt.Appendf(b, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units")
	value := func(n uint64) string {
		if n == linux.RLIM_INFINITY {
			return "unlimited"
		}
		return fmt.Sprint(n)
	}
	for k, d := range []struct{ name, unit string }{
		{"Max cpu time", "seconds"}, {"Max file size", "bytes"}, {"Max data size", "bytes"}, {"Max stack size", "bytes"},
		{"Max core file size", "bytes"}, {"Max resident set", "bytes"}, {"Max processes", "processes"}, {"Max open files", "files"},
		{"Max locked memory", "bytes"}, {"Max address space", "bytes"}, {"Max file locks", "locks"}, {"Max pending signals", "signals"},
		{"Max msgqueue size", "bytes"}, {"Max nice priority", ""}, {"Max realtime priority", ""}, {"Max realtime timeout", "us"},
	} {
		b = fmt.Appendf(b, "%-25s %-20s %-20s %-10s\n", d.name, value(l[k].Cur), value(l[k].Max), d.unit)
	}
	return b, nil
}

// maps is /proc/PID/maps.
func (v *view) maps(_ *vfs.Caller, b []byte) ([]byte, error) {
	s := v.x.Memory()
	if s == nil {
		return b, nil
	}
	const batch = 512
	for at := uint64(0); ; {
		rs := s.Regions(at, batch)
		for _, r := range rs {
			b = region(b, &r)
			at = r.End
		}
		if len(rs) < batch {
			return b, nil
		}
	}
}

func region(b []byte, r *mm.Region) []byte {
	p := []byte("---p")
	for k, c := range "rwx" {
		if r.Prot>>k&1 != 0 {
			p[k] = byte(c)
		}
	}
	if r.Shared {
		p[3] = 's'
	}
	start := len(b)
	b = fmt.Appendf(b, "%08x-%08x %s %08x %02x:%02x %d ", r.Start, r.End, p, r.Offset, r.Info.Major, r.Info.Minor, r.Info.Inode)
	if r.Info.Name != "" {
		const column = 73
		for len(b)-start < column {
			b = append(b, ' ')
		}
		b = append(b, escape(r.Info.Name, "\n")...)
	}
	return append(b, '\n')
}

const inMounts = " \t\n\\"

// mounts is /proc/PID/mounts.
func (v *view) mounts(c *vfs.Caller, b []byte) ([]byte, error) {
	root, err := v.root()
	if err != nil {
		return nil, linux.EINVAL
	}
	for _, m := range c.FS.VFS().MountInfos(root) {
		b = fmt.Appendf(b, "%s %s %s %s 0 0\n", escape(source(m.Source), inMounts), escape(m.Point, inMounts), m.Type, both(m))
	}
	return b, nil
}

// both are the options of mount and file system together, "rw" once.
func both(m vfs.MountInfo) string {
	_, super, ok := strings.Cut(m.Super, ",")
	if !ok {
		return m.Options
	}
	return m.Options + "," + super
}

func source(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// mountinfo is /proc/PID/mountinfo.
func (v *view) mountinfo(c *vfs.Caller, b []byte) ([]byte, error) {
	root, err := v.root()
	if err != nil {
		return nil, linux.EINVAL
	}
	for _, m := range c.FS.VFS().MountInfos(root) {
		b = fmt.Appendf(b, "%d %d %d:%d %s %s %s - %s %s %s\n", m.ID, m.Parent, vfs.Major(m.Dev), vfs.Minor(m.Dev), escape(m.Root, inMounts),
			escape(m.Point, inMounts), m.Options, m.Type, escape(source(m.Source), inMounts), m.Super)
	}
	return b, nil
}
