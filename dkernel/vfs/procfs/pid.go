package procfs

import (
	"fmt"
	"strconv"
	"strings"

	"dinos/dkernel/cred"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/pseudo"
	"dinos/kernel/linux"
)

// ino numbers the files of a process: its number and that of the file in it.
func ino(pid int32, file int) uint64 { return 1<<40 | uint64(pid)<<16 | uint64(file)&0xffff }

// view is a process, or one of its threads, as a reader sees it.
type view struct {
	p    *proc
	x    Process
	id   int32 // pid or tid: the name of the directory
	task bool  // it is /proc/PID/task/TID
}

// pidFile is a file of /proc/PID.
type pidFile struct {
	name    string
	perm    uint32
	private bool // only for those who may trace the process
	show    func(v *view, c *vfs.Caller, b []byte) ([]byte, error)
	store   func(v *view, c *vfs.Caller, data []byte) error
	node    func(v *view) *pseudo.Node // if it is no plain file
	leader  bool                       // not in task/TID
}

// pidFiles are the files of /proc/PID, in the order in which they are listed.
func pidFiles() []pidFile {
	return []pidFile{
		{name: "auxv", perm: 0o400, private: true, show: (*view).auxv},
		{name: "cgroup", perm: 0o444, show: func(_ *view, _ *vfs.Caller, b []byte) ([]byte, error) { return append(b, "0::/\n"...), nil }},
		{name: "cmdline", perm: 0o444, show: (*view).cmdline},
		{name: "comm", perm: 0o644, show: (*view).comm, store: (*view).setComm},
		{name: "cwd", node: func(v *view) *pseudo.Node { return v.pathLink(v.cwd) }},
		{name: "environ", perm: 0o400, private: true, show: (*view).environ},
		{name: "exe", node: func(v *view) *pseudo.Node { return v.pathLink(v.exe) }},
		{name: "fd", node: (*view).fdNode},
		{name: "fdinfo", node: (*view).fdinfoNode},
		{name: "io", perm: 0o400, private: true, show: (*view).io},
		{name: "limits", perm: 0o444, show: (*view).limits},
		{name: "loginuid", perm: 0o644, show: text("4294967295")},
		{name: "maps", perm: 0o444, private: true, show: (*view).maps},
		{name: "mem", node: (*view).memNode},
		{name: "mountinfo", perm: 0o444, show: (*view).mountinfo},
		{name: "mounts", perm: 0o444, show: (*view).mounts},
		{name: "oom_adj", perm: 0o644, show: (*view).oomAdj, store: (*view).setOOMAdj},
		{name: "oom_score", perm: 0o444, show: (*view).oomScore},
		{name: "oom_score_adj", perm: 0o644, show: (*view).oomScoreAdj, store: (*view).setOOMScoreAdj},
		{name: "personality", perm: 0o400, private: true, show: text("00000000\n")},
		{name: "root", node: func(v *view) *pseudo.Node { return v.pathLink(v.root) }},
		{name: "schedstat", perm: 0o444, show: (*view).schedstat},
		{name: "sessionid", perm: 0o444, show: text("4294967295")},
		{name: "stat", perm: 0o444, show: (*view).stat},
		{name: "statm", perm: 0o444, show: (*view).statm},
		{name: "status", perm: 0o444, show: (*view).status},
		{name: "task", leader: true, node: (*view).taskNode},
		{name: "uid_map", perm: 0o644, show: text("         0          0 4294967295\n")},
		{name: "gid_map", perm: 0o644, show: text("         0          0 4294967295\n")},
		{name: "wchan", perm: 0o444, show: (*view).wchan},
	}
}

func text(s string) func(*view, *vfs.Caller, []byte) ([]byte, error) {
	return func(_ *view, _ *vfs.Caller, b []byte) ([]byte, error) { return append(b, s...), nil }
}

// dir is the directory of a process or thread.
func (p *proc) dir(x Process, id int32, task bool) *pseudo.Node {
	v := &view{p, x, id, task}
	uid, gid := v.owner()
	return &pseudo.Node{Perm: 0o555, UID: uid, GID: gid, Ino: ino(id, 0), Dir: v}
}

// owner is whom the files belong to: the process, or root if others may not look at it.
func (v *view) owner() (uid, gid uint32) {
	if c := v.x.Cred(); c != nil && v.x.Dumpable() {
		return c.EUID, c.EGID
	}
	return 0, 0
}

// mayTrace is the check of ptrace(2), "Ptrace access mode checking", with PTRACE_MODE_FSCREDS.
func (v *view) mayTrace(c *vfs.Caller) error {
	var i Info
	if v.x.Info(&i) && i.PID == c.PID || c.Cred.Can(cred.SYS_PTRACE) {
		return nil
	}
	t := v.x.Cred()
	if t == nil {
		return linux.ESRCH
	}
	u, g := c.Cred.FSUID, c.Cred.FSGID
	if u != t.UID || u != t.EUID || u != t.SUID || g != t.GID || g != t.EGID || g != t.SGID || !v.x.Dumpable() || t.Permitted&^c.Cred.Permitted != 0 {
		return linux.EACCES
	}
	return nil
}

// alive is linux.ENOENT once the process was reaped.
func (v *view) alive(*vfs.Caller) error {
	var i Info
	if !v.x.Info(&i) {
		return linux.ENOENT
	}
	return nil
}

// Find implements pseudo.Dir.
func (v *view) Find(c *vfs.Caller, name string) (*pseudo.Node, error) {
	if err := v.alive(c); err != nil {
		return nil, err
	}
	for k := range v.p.files {
		f := &v.p.files[k]
		if f.name != name || f.leader && v.task {
			continue
		}
		uid, gid := v.owner()
		n := &pseudo.Node{}
		if f.node != nil {
			n = f.node(v)
		} else {
			n.Perm = f.perm
			n.Show = func(c *vfs.Caller, b []byte) ([]byte, error) { return f.show(v, c, b) }
			// A write where there is nothing to write is EINVAL in these directories (vfs_write), and EIO elsewhere (proc_reg_write).
			n.Store = func(*vfs.Caller, []byte) error { return linux.EINVAL }
			if f.store != nil {
				n.Store = func(c *vfs.Caller, d []byte) error { return f.store(v, c, d) }
			}
			if f.private {
				n.Check = v.mayTrace
			}
		}
		n.UID, n.GID, n.Ino = uid, gid, ino(v.id, k+1)
		return n, nil
	}
	return nil, linux.ENOENT
}

// Each implements pseudo.Dir.
func (v *view) Each(c *vfs.Caller, from int64, emit func(pseudo.Entry) bool) error {
	if err := v.alive(c); err != nil {
		return err
	}
	for k := from; k < int64(len(v.p.files)); k++ {
		f := &v.p.files[k]
		if f.leader && v.task {
			continue
		}
		kind := uint8(linux.DT_REG)
		if f.node != nil {
			kind = f.node(v).Type()
		}
		if !emit(pseudo.Entry{Name: f.name, Type: kind, Ino: ino(v.id, int(k)+1), Next: k + 1}) {
			break
		}
	}
	return nil
}

// pathLink is a link to a place in the tree.
func (v *view) pathLink(where func() (vfs.Path, error)) *pseudo.Node {
	return &pseudo.Node{
		Check: v.mayTrace,
		Link: func(c *vfs.Caller) (string, error) {
			p, err := where()
			if err != nil {
				return "", err
			}
			s, _ := p.From(c.FS.Root())
			return s, nil
		},
		Jump: func(*vfs.Caller) (vfs.Path, error) { return where() },
	}
}

func (v *view) exe() (vfs.Path, error) {
	p := v.x.Exe()
	if p.Dentry == nil {
		return p, linux.ENOENT
	}
	return p, nil
}

func (v *view) cwd() (vfs.Path, error) {
	if f := v.x.FS(); f != nil {
		return f.Cwd(), nil
	}
	return vfs.Path{}, linux.ENOENT
}

func (v *view) root() (vfs.Path, error) {
	if f := v.x.FS(); f != nil {
		return f.Root(), nil
	}
	return vfs.Path{}, linux.ENOENT
}

// memory reads a range of the process' memory.
func (v *view) memory(b []byte, start, end uint64) ([]byte, error) {
	m := v.x.Memory()
	if m == nil || end <= start {
		return b, nil
	}
	const most = 8 << 20 // more than an execve can bring
	n := len(b)
	b = append(b, make([]byte, min(end-start, most))...)
	k, err := m.CopyIn(b[n:], start)
	if err != nil && k == 0 {
		return nil, linux.EIO
	}
	return b[:n+k], nil
}

func (v *view) cmdline(_ *vfs.Caller, b []byte) ([]byte, error) {
	var i Info
	if !v.x.Info(&i) {
		return nil, linux.ESRCH
	}
	n := len(b)
	b, err := v.memory(b, i.ArgStart, i.ArgEnd)
	if err != nil || len(b) == n || b[len(b)-1] == 0 || i.EnvEnd <= i.EnvStart {
		return b, err
	}
	// setproctitle(3) wrote beyond the arguments: then the text goes on in the environment, to its first zero byte.
	b, err = v.memory(b, i.EnvStart, i.EnvEnd)
	if end := strings.IndexByte(string(b[n:]), 0); err == nil && end >= 0 {
		b = b[:n+end]
	}
	return b, err
}

func (v *view) environ(_ *vfs.Caller, b []byte) ([]byte, error) {
	var i Info
	if !v.x.Info(&i) {
		return nil, linux.ESRCH
	}
	return v.memory(b, i.EnvStart, i.EnvEnd)
}

func (v *view) auxv(_ *vfs.Caller, b []byte) ([]byte, error) { return append(b, v.x.Auxv()...), nil }

func (v *view) comm(_ *vfs.Caller, b []byte) ([]byte, error) {
	var i Info
	if !v.x.Info(&i) {
		return nil, linux.ESRCH
	}
	return append(append(b, i.Comm...), '\n'), nil
}

func (v *view) setComm(c *vfs.Caller, data []byte) error {
	var i Info
	if !v.x.Info(&i) {
		return linux.ESRCH
	}
	if i.PID != c.PID {
		return linux.EINVAL
	}
	return v.x.SetComm(strings.TrimSuffix(string(data), "\n"))
}

func (v *view) wchan(_ *vfs.Caller, b []byte) ([]byte, error) {
	if w := v.x.Wait(); w != "" {
		return append(b, w...), nil
	}
	return append(b, '0'), nil
}

func (v *view) schedstat(_ *vfs.Caller, b []byte) ([]byte, error) {
	var i Info
	if !v.x.Info(&i) {
		return nil, linux.ESRCH
	}
	return fmt.Appendf(b, "%d 0 %d\n", i.User+i.System, i.Voluntary+i.Involuntary), nil
}

func (v *view) io(_ *vfs.Caller, b []byte) ([]byte, error) {
	var i Info
	if !v.x.Info(&i) {
		return nil, linux.ESRCH
	}
	return fmt.Appendf(b, "rchar: %d\nwchar: %d\nsyscr: %d\nsyscw: %d\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n",
		i.ReadChars, i.WriteChars, i.ReadCalls, i.WriteCalls), nil
}

func (v *view) oomScore(_ *vfs.Caller, b []byte) ([]byte, error) {
	score := 0
	if m := v.x.Memory(); m != nil {
		s := m.Stat()
		if total := v.p.c.Machine.Memory().Total / 4096; total > 0 {
			score = int(int64(s.Own+s.File) * 1000 / total)
		}
	}
	// 2/3 of a badness that begins at 1000, as oom_score has been since Linux 5.x; never negative.
	return fmt.Appendf(b, "%d\n", max((1000+score+v.x.OOMScoreAdj())*2/3, 0)), nil
}

func (v *view) oomScoreAdj(_ *vfs.Caller, b []byte) ([]byte, error) {
	return fmt.Appendf(b, "%d\n", v.x.OOMScoreAdj()), nil
}

func (v *view) setOOMScoreAdj(c *vfs.Caller, data []byte) error {
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < -1000 || n > 1000 {
		return linux.EINVAL
	}
	if n < v.x.OOMScoreAdj() && !c.Cred.Can(cred.SYS_RESOURCE) {
		return linux.EACCES
	}
	return v.x.SetOOMScoreAdj(n)
}

// The old scale goes from -17 (never) to 15.
func (v *view) oomAdj(_ *vfs.Caller, b []byte) ([]byte, error) {
	n := v.x.OOMScoreAdj()
	if n == 1000 {
		return append(b, "15\n"...), nil
	}
	return fmt.Appendf(b, "%d\n", n*17/1000), nil
}

func (v *view) setOOMAdj(c *vfs.Caller, data []byte) error {
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < -17 || n > 15 {
		return linux.EINVAL
	}
	n = n * 1000 / 17
	if strings.TrimSpace(string(data)) == "15" {
		n = 1000
	}
	return v.setOOMScoreAdj(c, strconv.AppendInt(nil, int64(n), 10))
}

// memNode is /proc/PID/mem.
func (v *view) memNode() *pseudo.Node {
	return &pseudo.Node{Perm: 0o600, Check: v.mayTrace, File: func(*vfs.Caller, *vfs.Description) (vfs.File, error) {
		return &memFile{v: v}, nil
	}}
}

// memFile reads and writes memory of a process at the addresses that are the positions.
type memFile struct {
	vfs.BaseFile
	v *view
}

// Read implements vfs.File.
func (f *memFile) Read(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, off *int64) (int64, error) {
	return f.each(io, off, func(m Space, b []byte, addr uint64) (int, error) {
		n, err := m.CopyIn(b, addr)
		if n == 0 {
			return 0, err
		}
		return io.Write(b[:n])
	})
}

// Write implements vfs.File.
func (f *memFile) Write(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, off *int64) (int64, error) {
	return f.each(io, off, func(m Space, b []byte, addr uint64) (int, error) {
		n, err := io.Read(b)
		if err != nil {
			return 0, err
		}
		return m.CopyOut(addr, b[:n])
	})
}

func (f *memFile) each(io *uio.IO, off *int64, do func(m Space, b []byte, addr uint64) (int, error)) (n int64, err error) {
	m := f.v.x.Memory()
	if m == nil {
		return 0, nil
	}
	buf := make([]byte, min(io.Len(), 4096))
	for io.Len() > 0 && err == nil {
		var k int
		k, err = do(m, buf[:min(io.Len(), int64(len(buf)))], uint64(*off))
		*off += int64(k)
		n += int64(k)
		if k == 0 {
			break
		}
	}
	if n > 0 {
		return n, nil
	}
	if err != nil {
		err = linux.EIO
	}
	return 0, err
}

// Seek implements vfs.Seeker.
func (f *memFile) Seek(_ *vfs.Caller, _ *vfs.Description, cur, off int64, whence int) (int64, error) {
	if whence == linux.SEEK_SET {
		return off, nil
	}
	return vfs.SeekIn(cur, off, whence, 0)
}
