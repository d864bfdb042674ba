package procfs

import (
	"fmt"
	"slices"
	"strconv"

	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/pseudo"
	"dinos/kernel/linux"
)

// fds is /proc/PID/fd, or fdinfo.
type fds struct {
	v    *view
	info bool
}

func (v *view) fdNode() *pseudo.Node {
	return &pseudo.Node{Perm: 0o500, Dir: fds{v, false}, Check: v.mayTrace}
}

func (v *view) fdinfoNode() *pseudo.Node {
	return &pseudo.Node{Perm: 0o555, Dir: fds{v, true}, Check: v.mayTrace}
}

// get returns the description of fd with a reference.
func (f fds) get(fd int) (*vfs.Description, error) {
	t := f.v.x.Files()
	if t == nil {
		return nil, linux.ENOENT
	}
	d := t.Lookup(fd)
	if d == nil {
		return nil, linux.ENOENT
	}
	return d, nil
}

// Find implements pseudo.Dir.
func (f fds) Find(_ *vfs.Caller, name string) (*pseudo.Node, error) {
	n, ok := number(name)
	if !ok {
		return nil, linux.ENOENT
	}
	fd := int(n)
	d, err := f.get(fd)
	if err != nil {
		return nil, err
	}
	d.Unref()
	uid, gid := f.v.owner()
	x := &pseudo.Node{UID: uid, GID: gid}
	if f.info {
		x.Perm = 0o444
		x.Show = func(_ *vfs.Caller, b []byte) ([]byte, error) { return f.show(fd, b) }
		return x, nil
	}
	x.Link = func(c *vfs.Caller) (string, error) {
		d, err := f.get(fd)
		if err != nil {
			return "", err
		}
		defer d.Unref()
		s, _ := d.Path().From(c.FS.Root())
		return s, nil
	}
	x.Jump = func(*vfs.Caller) (vfs.Path, error) {
		d, err := f.get(fd)
		if err != nil {
			return vfs.Path{}, err
		}
		defer d.Unref()
		return d.Path(), nil
	}
	return x, nil
}

// Each implements pseudo.Dir.
func (f fds) Each(_ *vfs.Caller, from int64, emit func(pseudo.Entry) bool) error {
	t := f.v.x.Files()
	if t == nil {
		return nil
	}
	kind := uint8(linux.DT_LNK)
	if f.info {
		kind = linux.DT_REG
	}
	for fd := t.Next(int(from)); fd >= 0; fd = t.Next(fd + 1) {
		if !emit(pseudo.Entry{Name: strconv.Itoa(fd), Type: kind, Ino: ino(f.v.id, 0x1000+fd), Next: int64(fd) + 1}) {
			break
		}
	}
	return nil
}

func (f fds) show(fd int, b []byte) ([]byte, error) {
	d, err := f.get(fd)
	if err != nil {
		return nil, err
	}
	defer d.Unref()
	flags := d.Flags()
	if on, err := f.v.x.Files().Cloexec(fd); err == nil && on {
		flags |= linux.O_CLOEXEC
	}
	b = fmt.Appendf(b, "pos:\t%d\nflags:\t0%o\nmnt_id:\t%d\nino:\t%d\n", d.Offset(), flags, d.Path().MountID(), d.Inode().Ino())
	for _, l := range d.Locks(f.v.x.Files()) {
		b = fmt.Appendf(b, "lock:\t%s\n", l)
	}
	if x, ok := d.File().(vfs.FDInfoer); ok {
		b = x.FDInfo(d, b)
	}
	return b, nil
}

// tasks is /proc/PID/task.
type tasks struct{ v *view }

func (v *view) taskNode() *pseudo.Node { return &pseudo.Node{Perm: 0o555, Dir: tasks{v}} }

// Find implements pseudo.Dir.
func (t tasks) Find(_ *vfs.Caller, name string) (*pseudo.Node, error) {
	tid, ok := number(name)
	if !ok || !slices.Contains(t.v.x.Threads(), tid) {
		return nil, linux.ENOENT
	}
	x := t.v.p.c.Processes.Thread(tid)
	if x == nil {
		return nil, linux.ENOENT
	}
	return t.v.p.dir(x, tid, true), nil
}

// Each implements pseudo.Dir.
func (t tasks) Each(_ *vfs.Caller, from int64, emit func(pseudo.Entry) bool) error {
	for _, tid := range t.v.x.Threads() {
		if int64(tid) >= from && !emit(pseudo.Entry{Name: strconv.Itoa(int(tid)), Type: linux.DT_DIR, Ino: ino(tid, 0), Next: int64(tid) + 1}) {
			break
		}
	}
	return nil
}
