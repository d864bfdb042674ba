package procfs

import (
	"encoding/hex"
	"strconv"
	"strings"
	"sync/atomic"

	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/pseudo"
	"dinos/kernel/linux"
)

// sysctls fills /proc/sys: what is the same everywhere, then what the kernel brings, which replaces it.
func (p *proc) sysctls(v *vfs.VFS, root *pseudo.Map) {
	fixed := func(path, text string) Sysctl { return Sysctl{Path: path, Get: func() string { return text }} }
	name := func(i int) func() string { return func() string { return p.c.Machine.Uname()[i] } }
	all := []Sysctl{
		{Path: "kernel/ostype", Get: name(0)}, {Path: "kernel/hostname", Get: name(1)}, {Path: "kernel/osrelease", Get: name(2)},
		{Path: "kernel/version", Get: name(3)}, {Path: "kernel/domainname", Get: name(5)},
		fixed("kernel/pid_max", "4194304"), fixed("kernel/threads-max", "65536"), fixed("kernel/ngroups_max", "65536"), fixed("kernel/cap_last_cap", "40"),
		fixed("kernel/randomize_va_space", "2"), fixed("kernel/overflowuid", "65534"), fixed("kernel/overflowgid", "65534"),
		fixed("kernel/core_pattern", "core"), fixed("kernel/core_uses_pid", "0"), fixed("kernel/dmesg_restrict", "0"), fixed("kernel/kptr_restrict", "1"),
		fixed("kernel/sched_rt_period_us", "1000000"), fixed("kernel/sched_rt_runtime_us", "950000"), fixed("kernel/yama/ptrace_scope", "0"),
		fixed("kernel/shmmax", "18446744073692774399"), fixed("kernel/shmall", "18446744073692774399"), fixed("kernel/shmmni", "4096"),
		fixed("kernel/sem", "32000\t1024000000\t500\t32000"), fixed("kernel/msgmax", "8192"), fixed("kernel/msgmnb", "16384"), fixed("kernel/msgmni", "32000"),
		fixed("kernel/tainted", "0"), fixed("kernel/printk", "4\t4\t1\t7"), fixed("kernel/random/entropy_avail", "256"), fixed("kernel/random/poolsize", "256"),
		{Path: "kernel/random/uuid", Get: p.uuid}, fixed("kernel/random/boot_id", p.uuid()),
		fixed("vm/overcommit_memory", "0"), fixed("vm/overcommit_ratio", "50"), fixed("vm/max_map_count", "65530"), fixed("vm/mmap_min_addr", "65536"),
		fixed("vm/swappiness", "60"), fixed("vm/nr_hugepages", "0"), fixed("vm/min_free_kbytes", "1024"), fixed("vm/legacy_va_layout", "0"),
		fixed("vm/panic_on_oom", "0"), fixed("vm/oom_kill_allocating_task", "0"), fixed("vm/dirty_ratio", "20"), fixed("vm/dirty_background_ratio", "10"),
		fixed("fs/file-max", "9223372036854775807"), fixed("fs/nr_open", "1048576"), fixed("fs/pipe-max-size", "1048576"),
		fixed("fs/pipe-user-pages-soft", "16384"), fixed("fs/pipe-user-pages-hard", "0"), fixed("fs/aio-max-nr", "65536"), fixed("fs/aio-nr", "0"),
		fixed("fs/inotify/max_queued_events", "16384"), fixed("fs/inotify/max_user_instances", "128"), fixed("fs/inotify/max_user_watches", "65536"),
		fixed("fs/epoll/max_user_watches", "1048576"), fixed("fs/suid_dumpable", "0"), fixed("fs/mount-max", "100000"),
		{Path: "fs/file-nr", Get: func() string { return strconv.FormatInt(v.OpenFiles(), 10) + "\t0\t9223372036854775807" }},
		fixed("net/core/somaxconn", "4096"), fixed("net/core/rmem_max", "212992"), fixed("net/core/wmem_max", "212992"),
		fixed("net/core/rmem_default", "212992"), fixed("net/core/wmem_default", "212992"),
	}
	for _, x := range []struct {
		name  string
		level *atomic.Int32
	}{{"hardlinks", &v.Protect.Hardlinks}, {"symlinks", &v.Protect.Symlinks}, {"fifos", &v.Protect.FIFOs}, {"regular", &v.Protect.Regular}} {
		all = append(all, Sysctl{Path: "fs/protected_" + x.name, Get: func() string { return strconv.Itoa(int(x.level.Load())) }, Set: func(_ *vfs.Caller, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || n > 2 {
				return linux.EINVAL
			}
			x.level.Store(int32(n))
			return nil
		}})
	}
	at := map[string]int{}
	for i, s := range all {
		at[s.Path] = i
	}
	for _, s := range p.c.Sysctls {
		if i, ok := at[s.Path]; ok {
			all[i] = s
		} else {
			all = append(all, s)
		}
	}
	for _, s := range all {
		m := root
		dirs := strings.Split(s.Path, "/")
		for _, d := range dirs[:len(dirs)-1] {
			m = m.Sub(d)
		}
		m.Add(dirs[len(dirs)-1], sysctl(s))
	}
}

func sysctl(s Sysctl) *pseudo.Node {
	n := pseudo.Gen(func(b []byte) []byte { return append(append(b, s.Get()...), '\n') })
	if s.Set != nil {
		n.Perm = 0o644
		n.Store = func(c *vfs.Caller, data []byte) error { return s.Set(c, strings.TrimSpace(string(data))) }
	}
	return n
}

// uuid is a random one (RFC 9562, version 4).
func (p *proc) uuid() string {
	var b [16]byte
	if p.c.Random != nil {
		p.c.Random(b[:])
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
