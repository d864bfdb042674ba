// Package devfs is /dev: the memory devices (null, zero, full, random, urandom), names for terminals, which package tty serves,
// /dev/pts, /dev/shm and the links to /proc/self/fd.
package devfs

import (
	"strconv"

	"dinos/dkernel/cred"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/tmpfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Config is what the devices work with.
type Config struct {
	// Random fills its argument with random bytes, for /dev/random and /dev/urandom.
	Random func([]byte)
	// Log takes what is written to /dev/kmsg, a record a call. nil: it is dropped.
	Log func(record string)
	// ShmSize is the size of /dev/shm in bytes; 0: no limit of its own.
	ShmSize int64
}

// nodes are the device files, with the numbers and modes of Linux (Documentation/admin-guide/devices.txt, udev's modes).
var nodes = []struct {
	name         string
	major, minor uint32
	mode         uint32
}{
	{"null", 1, 3, 0o666}, {"zero", 1, 5, 0o666}, {"full", 1, 7, 0o666}, {"random", 1, 8, 0o666}, {"urandom", 1, 9, 0o666},
	{"kmsg", 1, 11, 0o644}, {"tty", 5, 0, 0o666}, {"console", 5, 1, 0o600}, {"ptmx", 5, 2, 0o666},
}

// Dev is a /dev.
type Dev struct {
	FS  *tmpfs.FS
	Shm *tmpfs.FS
	Pts *Pts
	v   *vfs.VFS
}

// New makes the file systems and registers the memory devices.
func New(v *vfs.VFS, c Config) *Dev {
	m := &memory{random: c.Random, log: c.Log}
	for _, n := range nodes {
		if n.major == 1 {
			v.RegisterChar(1, n.minor, func(*vfs.Caller, *vfs.Description, *vfs.Inode, uint32) (vfs.File, error) {
				return m.file(n.minor), nil
			})
		}
	}
	return &Dev{
		FS: tmpfs.New(v, tmpfs.Config{Type: "devtmpfs", Mode: 0o755}), Shm: tmpfs.New(v, tmpfs.Config{Size: c.ShmSize}),
		Pts: newPts(v), v: v,
	}
}

// Mount mounts all at dir, which is made if it is not there, and makes the names. c has root's credentials.
func (d *Dev) Mount(c *vfs.Caller, dir string) error {
	mask := c.FS.SetUmask(0)
	defer c.FS.SetUmask(mask)
	mount := func(f *vfs.FS, at, source string, flags uint32) error {
		if err := c.MkdirAt(linux.AT_FDCWD, at, 0o755); err != nil && err != linux.EEXIST {
			return err
		}
		p, err := c.Walk(linux.AT_FDCWD, at, vfs.Follow|vfs.WantDir)
		if err != nil {
			return err
		}
		return d.v.Mount(f, f.Root(), p, source, flags)
	}
	if err := mount(d.FS.FS, dir, "devtmpfs", linux.MS_NOSUID|linux.MS_NOEXEC); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := c.MknodAt(linux.AT_FDCWD, dir+"/"+n.name, linux.S_IFCHR|n.mode, vfs.MkDev(n.major, n.minor)); err != nil {
			return err
		}
	}
	for _, l := range [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}} {
		if err := c.SymlinkAt(l[0], linux.AT_FDCWD, dir+"/"+l[1]); err != nil {
			return err
		}
	}
	if err := mount(d.Pts.FS.FS, dir+"/pts", "devpts", linux.MS_NOSUID|linux.MS_NOEXEC); err != nil {
		return err
	}
	if err := d.Pts.init(c); err != nil {
		return err
	}
	return mount(d.Shm.FS, dir+"/shm", "tmpfs", linux.MS_NOSUID|linux.MS_NODEV)
}

// Pts is /dev/pts: it has a name for each pseudo terminal.
type Pts struct {
	FS  *tmpfs.FS
	ctx *vfs.Caller // root's, with /dev/pts as its root directory
}

func newPts(v *vfs.VFS) *Pts {
	return &Pts{FS: tmpfs.New(v, tmpfs.Config{Type: "devpts", Mode: 0o755, Options: "gid=5,mode=620,ptmxmode=666"})}
}

// init makes the name ptmx.
func (p *Pts) init(c *vfs.Caller) error {
	root, err := c.FS.VFS().Find(p.FS.FS)
	if err != nil {
		return err
	}
	p.ctx = &vfs.Caller{Cred: cred.Root(), FS: c.FS.VFS().NewFSContextAt(root), Files: vfs.NewFDTable()}
	p.ctx.FS.SetUmask(0)
	return p.ctx.MknodAt(linux.AT_FDCWD, "ptmx", linux.S_IFCHR|0o666, vfs.MkDev(5, 2))
}

// ttyGroup owns pseudo terminals, so that programs of the group can write to them (wall, write).
const ttyGroup = 5

// Add makes the name of terminal num with the device number dev, owned by who opened the master: tty.Config.Added. A
// name that cannot be made (no memory) is missed when it is opened.
func (p *Pts) Add(c *vfs.Caller, num int, dev uint64) {
	if p.ctx == nil {
		return
	}
	x := *p.ctx
	name := strconv.Itoa(num)
	if x.MknodAt(linux.AT_FDCWD, name, linux.S_IFCHR|0o620, dev) == nil {
		_ = x.FchownAt(linux.AT_FDCWD, name, c.Cred.FSUID, ttyGroup, 0)
	}
}

// Remove takes the name away: tty.Config.Removed.
func (p *Pts) Remove(num int) {
	if p.ctx == nil {
		return
	}
	x := *p.ctx
	_ = x.UnlinkAt(linux.AT_FDCWD, strconv.Itoa(num), 0)
}

// memory is the devices of major 1.
type memory struct {
	random func([]byte)
	log    func(string)
	queue  wait.Queue // nothing happens there; but random can be polled, unlike null
}

func (m *memory) file(minor uint32) vfs.File {
	switch minor {
	case 3:
		return null{}
	case 5:
		return zero{}
	case 7:
		return full{}
	case 11:
		return &kmsg{m: m}
	}
	return &random{m: m}
}

// null is /dev/null.
type null struct{ vfs.BaseFile }

// Read implements vfs.File.
func (null) Read(*vfs.Caller, *vfs.Description, *uio.IO, *int64) (int64, error) { return 0, nil }

// Write implements vfs.File. It does not look at the data, not even whether there is any.
func (null) Write(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	return io.Len(), nil
}

// Seek implements vfs.Seeker: the position is always 0.
func (null) Seek(*vfs.Caller, *vfs.Description, int64, int64, int) (int64, error) { return 0, nil }

// zeros is a source of zeros.
type zeros struct{ null }

// Read implements vfs.File.
func (zeros) Read(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	n, err := io.Zero(io.Len())
	if n > 0 {
		err = nil
	}
	return n, err
}

// zero is /dev/zero.
type zero struct{ zeros }

// MapsAnonymous implements vfs.AnonymousMapper.
func (zero) MapsAnonymous() {}

// full is /dev/full.
type full struct{ zeros }

// Write implements vfs.File.
func (full) Write(*vfs.Caller, *vfs.Description, *uio.IO, *int64) (int64, error) {
	return 0, linux.ENOSPC
}

// random is /dev/random and /dev/urandom, which are the same once there is entropy.
type random struct {
	vfs.BaseFile
	m *memory
}

// Read implements vfs.File.
func (r *random) Read(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, _ *int64) (n int64, err error) {
	var b [256]byte
	for io.Len() > 0 {
		p := b[:min(io.Len(), int64(len(b)))]
		r.m.random(p)
		var k int
		k, err = io.Write(p)
		n += int64(k)
		if err != nil {
			break
		}
	}
	clear(b[:])
	if n > 0 {
		err = nil
	}
	return n, err
}

// Write implements vfs.File: what is written could only add entropy that is not counted.
func (r *random) Write(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, _ *int64) (n int64, err error) {
	var b [256]byte
	for io.Len() > 0 && err == nil {
		var k int
		k, err = io.Read(b[:])
		n += int64(k)
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// Queue implements vfs.File.
func (r *random) Queue(*vfs.Description) *wait.Queue { return &r.m.queue }

// Seek implements vfs.Seeker.
func (r *random) Seek(_ *vfs.Caller, _ *vfs.Description, cur, _ int64, _ int) (int64, error) {
	return cur, nil
}

// Ioctl implements vfs.File: RNDGETENTCNT (include/uapi/linux/random.h).
func (r *random) Ioctl(c *vfs.Caller, _ *vfs.Description, req uint32, arg uint64) (uint64, error) {
	const getCount, bits = 0x80045200, 256
	if req != getCount {
		return 0, linux.EINVAL
	}
	return 0, c.PutInt(arg, bits)
}

// kmsg is /dev/kmsg, which can only be written here.
type kmsg struct {
	vfs.BaseFile
	m *memory
}

// maxRecord is how long a record may be (Documentation/ABI/testing/dev-kmsg).
const maxRecord = 1024

// Write implements vfs.File.
func (k *kmsg) Write(_ *vfs.Caller, _ *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if io.Len() > maxRecord {
		return 0, linux.EINVAL
	}
	b := make([]byte, io.Len())
	n, err := io.Read(b)
	if err != nil {
		return 0, err
	}
	if k.m.log != nil {
		k.m.log(string(b[:n]))
	}
	return int64(n), nil
}
