package procfs_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/cred"
	"dinos/dkernel/mm"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/procfs"
	"dinos/dkernel/vfs/vfstest"
	"dinos/kernel/linux"
)

const at = linux.AT_FDCWD

// space is a memory with some text at 0x1000.
type space struct{ text []byte }

func (s space) CopyIn(p []byte, addr uint64) (int, error) {
	if addr < 0x1000 || addr-0x1000 >= uint64(len(s.text)) {
		return 0, linux.EFAULT
	}
	n := copy(p, s.text[addr-0x1000:])
	if n < len(p) {
		return n, linux.EFAULT
	}
	return n, nil
}
func (s space) CopyOut(addr uint64, p []byte) (int, error) {
	if addr < 0x1000 || addr-0x1000 >= uint64(len(s.text)) {
		return 0, linux.EFAULT
	}
	return copy(s.text[addr-0x1000:], p), nil
}
func (space) Zero(uint64, uint64) (uint64, error) { return 0, linux.EFAULT }
func (space) Stat() mm.Stat {
	return mm.Stat{Total: 100, Own: 10, File: 5, Exec: 3, Data: 20, Stack: 2}
}
func (space) Regions(addr uint64, limit int) (out []mm.Region) {
	for i := uint64(0); i < 600; i++ {
		r := mm.Region{Start: 0x400000 + i*0x2000, End: 0x401000 + i*0x2000, Prot: 5, Offset: 0x1000, Info: mm.Info{Name: "/bin/x", Minor: 3, Inode: 17}}
		if i%2 == 1 {
			r.Prot, r.Shared, r.Info, r.Offset = 3, true, mm.Info{}, 0
		}
		if r.Start >= addr && len(out) < limit {
			out = append(out, r)
		}
	}
	return out
}

type process struct {
	r    *rig
	pid  int32
	tids []int32
	mu   sync.Mutex
	gone bool
	comm string
	adj  int
	c    *vfs.Caller
	exe  vfs.Path
	nd   bool
}

func (p *process) Info(i *procfs.Info) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	*i = procfs.Info{PID: p.pid, TID: p.pid, Comm: p.comm, State: 'S', PPID: 1, Group: p.pid, Session: p.pid, TTYGroup: -1, Threads: len(p.tids),
		User: 25e7, System: 1e7, Priority: 20, Start: 123e7, ExitSignal: 17, StartCode: 0x400000, ArgStart: 0x1000, ArgEnd: 0x1008, EnvStart: 0x1008, EnvEnd: 0x100c,
		Blocked: 1 << 16, CPUs: []uint64{0b1011}, SP: 0x7fff, Voluntary: 3}
	return !p.gone
}
func (p *process) Threads() []int32     { return p.tids }
func (p *process) Cred() *cred.Cred     { return p.c.Cred }
func (p *process) Dumpable() bool       { return !p.nd }
func (p *process) Files() *vfs.FDTable  { return p.c.Files }
func (p *process) FS() *vfs.FSContext   { return p.c.FS }
func (p *process) Exe() vfs.Path        { return p.exe }
func (p *process) Memory() procfs.Space { return space{[]byte("prog\x00-x\x00A=b\x00")} }
func (p *process) Limits() (l [linux.RLIM_NLIMITS]linux.Rlimit) {
	for i := range l {
		l[i] = linux.Rlimit{Cur: uint64(i), Max: linux.RLIM_INFINITY}
	}
	return l
}
func (p *process) Auxv() (b []byte) {
	for _, v := range []uint64{6, 4096, 0, 0} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
func (p *process) SetComm(s string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.comm = s
	return nil
}
func (p *process) OOMScoreAdj() int           { return p.adj }
func (p *process) SetOOMScoreAdj(n int) error { p.adj = n; return nil }
func (p *process) Wait() string               { return "pipe_read" }

type rig struct {
	*vfstest.Rig
	procs map[int32]*process
}

func (r *rig) Process(pid int32) procfs.Process {
	if p := r.procs[pid]; p != nil {
		return p
	}
	return nil
}
func (r *rig) Thread(tid int32) procfs.Process {
	for _, p := range r.procs {
		if slices.Contains(p.tids, tid) {
			return p
		}
	}
	return nil
}
func (r *rig) Next(from int32) int32 {
	best := int32(0)
	for pid := range r.procs {
		if pid >= from && (best == 0 || pid < best) {
			best = pid
		}
	}
	return best
}

type machine struct{}

func (machine) CPUs() []procfs.CPU {
	return []procfs.CPU{{ID: 0, Vendor: "GenuineIntel", Model: "Test CPU", KHz: 2_000_000, Flags: "fpu sse2"}, {ID: 1}}
}
func (machine) Times() []procfs.CPUTimes {
	return []procfs.CPUTimes{{User: 1e9, Idle: 5e9}, {User: 2e9}}
}
func (machine) Memory() procfs.Memory { return procfs.Memory{Total: 1 << 30, Free: 1 << 29} }
func (machine) Activity() procfs.Activity {
	return procfs.Activity{Uptime: 12_340_000_000, Boot: 1e18, Load: [3]float64{0.5, 1, 2}, Running: 1, Tasks: 9, LastPID: 77}
}
func (machine) CommandLine() string { return "console=ttyS0" }
func (machine) Uname() [6]string {
	return [6]string{"Linux", "node", "6.1.0", "#1 SMP", "x86_64", "(none)"}
}

func newRig(t testing.TB) *rig {
	r := &rig{vfstest.New(t, 2), map[int32]*process{}}
	set := ""
	fs := procfs.New(r.V, procfs.Config{Machine: machine{}, Processes: r, FileSystems: []string{"proc", "dev ext4"}, Sysctls: []procfs.Sysctl{
		{Path: "kernel/hostname", Get: func() string { return "h" + set }, Set: func(_ *vfs.Caller, s string) error { set = s; return nil }}, {Path: "a/b", Get: func() string { return "1" }}}}, nil)
	require.NoError(t, r.MkdirAt(at, "/proc", 0o755))
	p, err := r.Walk(at, "/proc", vfs.Follow)
	require.NoError(t, err)
	require.NoError(t, r.V.Mount(fs, fs.Root(), p, "proc", linux.MS_NOSUID))
	r.add(100, r.Caller)
	r.Caller.PID, r.Caller.TID = 100, 101
	return r
}

func (r *rig) add(pid int32, c *vfs.Caller) *process {
	p := &process{r: r, pid: pid, tids: []int32{pid, pid + 1}, comm: "a (b) c", c: c}
	c.PID, c.TID = pid, pid
	r.procs[pid] = p
	return p
}

func (r *rig) read(t testing.TB, path string) string {
	s, err := vfstest.ReadFile(r.Caller, path)
	require.NoError(t, err, path)
	return s
}

func TestProcess(t *testing.T) {
	r := newRig(t)
	stat := r.read(t, "/proc/self/stat")
	require.True(t, strings.HasPrefix(stat, "100 (a (b) c) S 1 100 100 0 -1 0 "), stat)
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+2:])
	require.Len(t, f, 50, "52 fields")
	require.Equal(t, []string{"25", "1", "0", "0", "20", "0", "2", "0", "123", "409600", "15"}, f[11:22])
	require.Equal(t, "100 15 5 3 0 22 0\n", r.read(t, "/proc/100/statm"))
	require.Equal(t, "prog\x00-x\x00", r.read(t, "/proc/self/cmdline"))
	require.Equal(t, "A=b\x00", r.read(t, "/proc/self/environ"))
	status := r.read(t, "/proc/thread-self/status")
	for _, l := range []string{"Name:\ta (b) c", "State:\tS (sleeping)", "Tgid:\t100", "Pid:\t101", "Uid:\t0\t0\t0\t0", "Threads:\t2", "SigBlk:\t0000000000010000", "VmRSS:\t      60 kB", "Cpus_allowed:\tb", "Cpus_allowed_list:\t0-1,3", "CapEff:\t000001ffffffffff"} {
		require.Contains(t, status, l+"\n")
	}
	maps := strings.Split(r.read(t, "/proc/self/maps"), "\n")
	require.Len(t, maps, 601)
	require.Equal(t, "00400000-00401000 r-xp 00001000 00:03 17 "+strings.Repeat(" ", 32)+"/bin/x", maps[0])
	require.Equal(t, "00402000-00403000 rw-s 00000000 00:00 0 ", maps[1])
	require.Contains(t, r.read(t, "/proc/self/limits"), "Max open files            7                    unlimited            files     \n")
	require.Equal(t, "pipe_read", r.read(t, "/proc/self/wchan"))
	require.Len(t, r.read(t, "/proc/self/auxv"), 32)
	vfstest.WriteFile(t, r.Caller, "/proc/self/comm", "new\n")
	require.Equal(t, "new\n", r.read(t, "/proc/self/comm"))
	vfstest.WriteFile(t, r.Caller, "/proc/self/oom_score_adj", "500\n")
	require.Equal(t, "500\n", r.read(t, "/proc/self/oom_score_adj"))
	require.Contains(t, r.read(t, "/proc/self/mountinfo"), " / /proc rw,nosuid,relatime - proc proc rw\n")
	require.Contains(t, r.read(t, "/proc/mounts"), "proc /proc proc rw,nosuid,relatime 0 0\n")
	to, err := r.ReadlinkAt(at, "/proc/self/cwd")
	require.NoError(t, err)
	require.Equal(t, "/", to)
	_, err = r.ReadlinkAt(at, "/proc/self/exe")
	require.Equal(t, linux.ENOENT, err)
	require.Equal(t, []string{"100:4", "101:4"}, r.list(t, "/proc/self/task")[2:])
}

func (r *rig) list(t testing.TB, path string) (out []string) {
	fd, err := r.OpenAt(at, path, linux.O_DIRECTORY, 0)
	require.NoError(t, err)
	defer vfstest.Close(t, r.Caller, fd)
	for {
		b := make([]byte, 300)
		var io uio.IO
		io.Bytes(b)
		n, err := r.Getdents(fd, &io, false)
		require.NoError(t, err)
		if n == 0 {
			return out
		}
		for b = b[:n]; len(b) > 0; {
			size := int(b[16]) | int(b[17])<<8
			name, _, _ := strings.Cut(string(b[19:size]), "\x00")
			out = append(out, fmt.Sprintf("%s:%d", name, b[18]))
			b = b[size:]
		}
	}
}

func TestFDs(t *testing.T) {
	r := newRig(t)
	vfstest.WriteFile(t, r.Caller, "/file", "contents")
	fd, err := r.OpenAt(at, "/file", linux.O_RDWR|linux.O_CLOEXEC, 0)
	require.NoError(t, err)
	link := "/proc/self/fd/" + strconv.Itoa(fd)
	to, err := r.ReadlinkAt(at, link)
	require.NoError(t, err)
	require.Equal(t, "/file", to)
	_, err = vfstest.Read(r.Caller, fd, 3)
	require.NoError(t, err)
	require.Regexp(t, `^pos:\t3\nflags:\t02100002\nmnt_id:\t1\nino:\t\d+\n$`, r.read(t, "/proc/self/fdinfo/"+strconv.Itoa(fd)))
	require.NoError(t, r.RecordLock(fd, linux.F_SETLK, &linux.Flock{Type: linux.F_WRLCK, Start: 5, Len: 5}))
	require.Contains(t, r.read(t, "/proc/self/fdinfo/"+strconv.Itoa(fd)), "lock:\t1: POSIX  ADVISORY  WRITE 100 00:")
	// The file can be had again by its link even when its name is gone.
	require.NoError(t, r.UnlinkAt(at, "/file", 0))
	to, err = r.ReadlinkAt(at, link)
	require.NoError(t, err)
	require.Equal(t, "/file (deleted)", to)
	require.Equal(t, "contents", r.read(t, link))
	require.Contains(t, r.list(t, "/proc/self/fd"), strconv.Itoa(fd)+":10")
	d := r.NewNameless(r.V.NewPipe(r.Caller), vfs.BaseFile{}, linux.O_RDONLY, vfs.Stream)
	p, err := r.Files.Install(d, 0, 1024, false)
	require.NoError(t, err)
	to, err = r.ReadlinkAt(at, "/proc/self/fd/"+strconv.Itoa(p))
	require.NoError(t, err)
	require.Regexp(t, `^pipe:\[\d+\]$`, to)
	_, err = r.OpenAt(at, "/proc/self/fd/"+strconv.Itoa(p)+"/x", 0, 0)
	require.Equal(t, linux.ENOTDIR, err)
	_, err = r.OpenAt2(at, link, linux.OpenHow{Resolve: linux.RESOLVE_NO_MAGICLINKS})
	require.Equal(t, linux.ELOOP, err)
	for _, x := range []string{"/proc/self/fd/99", "/proc/self/fd/x", "/proc/self/fd/00", "/proc/self/fd/-1", "/proc/4294967396", "/proc/0100"} {
		_, err = r.OpenAt(at, x, 0, 0)
		require.Equal(t, linux.ENOENT, err, x)
	}
}

func TestPermissions(t *testing.T) {
	r := newRig(t)
	user, other := r.As(1000, 1000), r.As(1001, 1001)
	p := r.add(200, user)
	r.add(300, other)
	see := func(c *vfs.Caller, path string) error { _, err := vfstest.ReadFile(c, path); return err }
	require.NoError(t, see(user, "/proc/200/environ"))
	require.Equal(t, linux.EACCES, see(other, "/proc/200/environ"))
	require.NoError(t, see(other, "/proc/200/stat"))
	require.NoError(t, see(r.Caller, "/proc/200/environ"))
	require.Equal(t, linux.EACCES, see(other, "/proc/200/maps"))
	_, err := other.ReadlinkAt(at, "/proc/200/cwd")
	require.Equal(t, linux.EACCES, err)
	_, err = other.OpenAt(at, "/proc/200/fd", linux.O_DIRECTORY, 0)
	require.Equal(t, linux.EACCES, err)
	require.NoError(t, see(user, "/proc/self/stat"))
	same := r.As(1000, 1000)
	r.add(400, same)
	require.NoError(t, see(same, "/proc/200/environ"))
	p.nd = true
	require.Equal(t, linux.EACCES, see(same, "/proc/200/environ"))
	stat, err := vfstest.ReadFile(other, "/proc/200/stat")
	require.NoError(t, err)
	require.NotContains(t, stat, "32767", "addresses are hidden")
	require.Equal(t, linux.EACCES, see2(user.OpenAt(at, "/proc/sys/kernel/hostname", linux.O_WRONLY, 0)))
	require.Equal(t, linux.ENOENT, see2(r.OpenAt(at, "/proc/nothing", linux.O_CREAT|linux.O_RDWR, 0)))
	require.Equal(t, linux.ENOENT, r.MkdirAt(at, "/proc/d", 0o755))
	require.Equal(t, linux.EPERM, r.FchmodAt(at, "/proc/stat", 0o777, 0))
	require.Equal(t, linux.EPERM, r.UnlinkAt(at, "/proc/stat", 0))
}

func see2(_ int, err error) error { return err }

func TestRoot(t *testing.T) {
	r := newRig(t)
	require.Equal(t, "12.34 5.00\n", r.read(t, "/proc/uptime"))
	require.Equal(t, "0.50 1.00 2.00 1/9 77\n", r.read(t, "/proc/loadavg"))
	require.True(t, strings.HasPrefix(r.read(t, "/proc/stat"), "cpu  300 0 0 500 0 0 0 0 0 0\ncpu0 100 0 0 500 "))
	require.True(t, strings.HasPrefix(r.read(t, "/proc/meminfo"), "MemTotal:        1048576 kB\nMemFree:          524288 kB\n"))
	require.Equal(t, "nodev\tproc\n\text4\n", r.read(t, "/proc/filesystems"))
	require.Contains(t, r.read(t, "/proc/cpuinfo"), "model name\t: Test CPU\n")
	require.Equal(t, "4096\n", r.read(t, "/proc/sys/net/core/somaxconn"))
	require.Equal(t, "1\n", r.read(t, "/proc/sys/a/b"))
	vfstest.WriteFile(t, r.Caller, "/proc/sys/kernel/hostname", "x\n")
	require.Equal(t, "hx\n", r.read(t, "/proc/sys/kernel/hostname"))
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n$`, r.read(t, "/proc/sys/kernel/random/uuid"))
	for pid := int32(1000); pid < 1200; pid++ {
		r.add(pid, r.NewCaller())
	}
	r.Caller.PID = 100
	all := r.list(t, "/proc")
	require.Contains(t, all, "self:10")
	n := 0
	for _, e := range all {
		if e[0] >= '0' && e[0] <= '9' {
			n++
		}
	}
	require.Equal(t, 201, n)
	// Every file of a process can be opened and read, or says why not.
	for _, e := range r.list(t, "/proc/self") {
		name, kind, _ := strings.Cut(e, ":")
		if kind == "8" && name != "mem" {
			require.NotNil(t, r.read(t, "/proc/self/"+name))
		}
	}
}

// A file that stays open tells of the present when read from the beginning, and of one moment while read on.
func TestSnapshot(t *testing.T) {
	r := newRig(t)
	fd, err := r.OpenAt(at, "/proc/self/comm", linux.O_RDWR, 0)
	require.NoError(t, err)
	a, _ := vfstest.Read(r.Caller, fd, 3)
	require.NoError(t, r.procs[100].SetComm("longer name"))
	b, _ := vfstest.Read(r.Caller, fd, 100)
	require.Equal(t, "a (b) c\n", a+b)
	_, err = r.Lseek(fd, 0, linux.SEEK_SET)
	require.NoError(t, err)
	c, _ := vfstest.Read(r.Caller, fd, 100)
	require.Equal(t, "longer name\n", c)
}

func TestReaped(t *testing.T) {
	r := newRig(t)
	p := r.add(200, r.NewCaller())
	r.Caller.PID = 100
	dir, err := r.OpenAt(at, "/proc/200", linux.O_DIRECTORY, 0)
	require.NoError(t, err)
	fd, err := r.OpenAt(at, "/proc/200/stat", 0, 0)
	require.NoError(t, err)
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	delete(r.procs, 200)
	_, err = vfstest.Read(r.Caller, fd, 100)
	require.Equal(t, linux.ESRCH, err)
	_, err = r.OpenAt(dir, "stat", 0, 0)
	require.Equal(t, linux.ENOENT, err)
	var io uio.IO
	io.Bytes(make([]byte, 1000))
	_, err = r.Getdents(dir, &io, false)
	require.Equal(t, linux.ENOENT, err)
}

func TestSys(t *testing.T) {
	r := vfstest.New(t, 2)
	fs := procfs.NewSys(r.V, func() []int { return []int{0, 1, 2} }, 4)
	require.NoError(t, r.MkdirAt(at, "/sys", 0o755))
	p, err := r.Walk(at, "/sys", 0)
	require.NoError(t, err)
	require.NoError(t, r.V.Mount(fs, fs.Root(), p, "sysfs", 0))
	for path, want := range map[string]string{"devices/system/cpu/online": "0-2\n", "devices/system/cpu/possible": "0-3\n", "kernel/mm/transparent_hugepage/hpage_pmd_size": "2097152\n"} {
		got, err := vfstest.ReadFile(r.Caller, "/sys/"+path)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	var s linux.Statfs
	require.NoError(t, r.Statfs("/sys", &s))
	require.EqualValues(t, linux.SYSFS_MAGIC, s.Type)
}
