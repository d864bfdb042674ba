package vfs

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// Mount is a file system, or a directory of one, put in a place of the tree.
type Mount struct {
	fs     *FS
	root   *Dentry
	at     atomic.Pointer[Path] // what it covers; nil of the root, and after umount
	id     uint64
	parent uint64 // id
	flags  atomic.Uint32
	source string
	opens  atomic.Int64 // descriptions, so that umount can say EBUSY
	subs   int          // mounts on it; guarded by VFS.mounting
}

type mountPoint struct {
	mount  *Mount
	dentry *Dentry
}

// perMount are the flags that a mount keeps.
const perMount = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | linux.MS_NOATIME | linux.MS_NODIRATIME

// FS returns what is mounted.
func (m *Mount) FS() *FS { return m.fs }

// Flags are the linux.MS_* flags.
func (m *Mount) Flags() uint32 { return m.flags.Load() }

// ReadOnly tells whether changes through m are refused.
func (m *Mount) ReadOnly() bool { return m.flags.Load()&linux.MS_RDONLY != 0 || m.fs.conf.ReadOnly }

// writable is the check before changes: linux.EROFS.
func (m *Mount) writable() error {
	if m != nil && m.ReadOnly() {
		return linux.EROFS
	}
	return nil
}

// Root is the root of the tree; the zero Path before something is mounted there.
func (v *VFS) Root() Path {
	v.mounting.Lock()
	defer v.mounting.Unlock()
	if v.root == nil {
		return Path{}
	}
	return Path{v.root, v.root.root}
}

// MountRoot mounts the first file system. It is an error of the caller to do it twice.
func (v *VFS) MountRoot(f *FS, source string, flags uint32) error {
	v.mounting.Lock()
	defer v.mounting.Unlock()
	if v.root != nil {
		return linux.EBUSY
	}
	v.root = v.newMount(f, f.root, source, flags)
	return nil
}

// Find returns the root of the first mount of f, or linux.ENOENT.
func (v *VFS) Find(f *FS) (Path, error) {
	v.mounting.Lock()
	defer v.mounting.Unlock()
	for _, m := range v.order {
		if m.fs == f {
			return Path{m, m.root}, nil
		}
	}
	return Path{}, linux.ENOENT
}

// newMount is called with mounting held.
func (v *VFS) newMount(f *FS, root *Dentry, source string, flags uint32) *Mount {
	v.mountIDs++
	m := &Mount{fs: f, root: root, id: v.mountIDs, source: source}
	m.flags.Store(flags & perMount)
	v.order = append(v.order, m)
	return m
}

// Mount mounts the directory root of f at a directory (or a file, if root is one). Errors: linux.ENOTDIR, ENOENT if at was removed.
func (v *VFS) Mount(f *FS, root *Dentry, at Path, source string, flags uint32) error {
	v.mounting.Lock()
	defer v.mounting.Unlock()
	if root.inode.IsDir() != at.Inode().IsDir() {
		return linux.ENOTDIR
	}
	if at.Dentry.Gone() {
		return linux.ENOENT
	}
	at = v.cross(at)
	v.attach(v.newMount(f, root, source, flags), at)
	return nil
}

func (v *VFS) attach(m *Mount, at Path) {
	m.parent = at.Mount.id
	m.at.Store(&at)
	at.Mount.subs++
	n := maps.Clone(*v.mounts.Load())
	n[mountPoint{at.Mount, at.Dentry}] = m
	v.mounts.Store(&n)
	at.Dentry.mounts.Add(1)
}

func (v *VFS) detach(m *Mount) {
	at := m.at.Swap(nil)
	at.Mount.subs--
	at.Dentry.mounts.Add(-1)
	n := maps.Clone(*v.mounts.Load())
	delete(n, mountPoint{at.Mount, at.Dentry})
	v.mounts.Store(&n)
}

// cross follows mounts on p.
func (v *VFS) cross(p Path) Path {
	for p.Dentry.mounts.Load() != 0 {
		m := (*v.mounts.Load())[mountPoint{p.Mount, p.Dentry}]
		if m == nil {
			break
		}
		p = Path{m, m.root}
	}
	return p
}

// FSMaker makes a file system for mount(2). source and data are its arguments.
type FSMaker func(v *VFS, source, data string) (*FS, error)

// MountAt is mount(2). types has the kinds of file systems by name.
func (c *Caller) MountAt(source, target, kind string, flags uint32, data string, types map[string]FSMaker) error {
	if !c.Cred.Can(cred.SYS_ADMIN) {
		return linux.EPERM
	}
	at, err := c.Walk(linux.AT_FDCWD, target, Follow)
	if err != nil {
		return err
	}
	v := c.FS.v
	switch {
	case flags&linux.MS_REMOUNT != 0:
		if at.Dentry != at.Mount.root {
			return linux.EINVAL
		}
		at.Mount.flags.Store(flags & perMount)
		return nil
	case flags&linux.MS_BIND != 0:
		from, err := c.Walk(linux.AT_FDCWD, source, Follow)
		if err != nil {
			return err
		}
		return v.Mount(from.Mount.fs, from.Dentry, at, from.Mount.source, from.Mount.flags.Load())
	case flags&(linux.MS_SHARED|linux.MS_PRIVATE|linux.MS_SLAVE|linux.MS_UNBINDABLE) != 0:
		// There is one mount namespace, in which nothing propagates: all mounts are private.
		if flags&linux.MS_PRIVATE == 0 || at.Dentry != at.Mount.root {
			return linux.EINVAL
		}
		return nil
	case flags&linux.MS_MOVE != 0:
		from, err := c.Walk(linux.AT_FDCWD, source, Follow)
		if err != nil {
			return err
		}
		return v.moveMount(from, at)
	}
	mk := types[kind]
	if mk == nil {
		return linux.ENODEV
	}
	f, err := mk(v, source, data)
	if err != nil {
		return err
	}
	return v.Mount(f, f.root, at, source, flags)
}

// above tells whether m is x or on it, maybe with others between. VFS.mounting is held.
func (m *Mount) above(x *Mount) bool {
	for m != x {
		at := m.at.Load()
		if at == nil {
			return false
		}
		m = at.Mount
	}
	return true
}

func (v *VFS) moveMount(from, to Path) error {
	v.mounting.Lock()
	defer v.mounting.Unlock()
	m := from.Mount
	if from.Dentry != m.root || m.at.Load() == nil || m.root.inode.IsDir() != to.Inode().IsDir() {
		return linux.EINVAL
	}
	to = v.cross(to)
	if to.Mount.above(m) {
		return linux.ELOOP
	}
	v.detach(m)
	v.attach(m, to)
	return nil
}

// UmountAt is umount2(2).
func (c *Caller) UmountAt(target string, flags int) error {
	if flags&^(linux.MNT_FORCE|linux.MNT_DETACH|linux.MNT_EXPIRE|linux.UMOUNT_NOFOLLOW) != 0 {
		return linux.EINVAL
	}
	var how WalkFlags = Follow
	if flags&linux.UMOUNT_NOFOLLOW != 0 {
		how = 0
	}
	p, err := c.Walk(linux.AT_FDCWD, target, how)
	if err != nil {
		return err
	}
	if p.Dentry != p.Mount.root {
		return linux.EINVAL
	}
	if !c.Cred.Can(cred.SYS_ADMIN) {
		return linux.EPERM
	}
	v, m := c.FS.v, p.Mount
	v.mounting.Lock()
	defer v.mounting.Unlock()
	if m.at.Load() == nil { // the root, or somebody was faster
		return linux.EINVAL
	}
	if flags&linux.MNT_DETACH == 0 && (m.subs > 0 || m.opens.Load() > 0) {
		return linux.EBUSY
	}
	var gone []*Mount // m and all that is on it
	v.order = slices.DeleteFunc(v.order, func(o *Mount) bool {
		if o.above(m) {
			gone = append(gone, o)
			return true
		}
		return false
	})
	for _, o := range gone {
		v.detach(o)
	}
	return nil
}

// MountInfo is a line of /proc/self/mounts and mountinfo.
type MountInfo struct {
	ID, Parent uint64
	Dev        uint64
	Root       string // in the file system
	Point      string // as the reader sees it
	Options    string // of the mount: "rw,relatime"
	Super      string // of the file system: "rw,size=1024k"
	Type       string
	Source     string
}

// MountInfos lists the mounts that root reaches, in the order they were made.
func (v *VFS) MountInfos(root Path) []MountInfo {
	v.mounting.Lock()
	order := slices.Clone(v.order)
	v.mounting.Unlock()
	var out []MountInfo
	for _, m := range order {
		point, ok := Path{m, m.root}.From(root)
		if !ok && root.Dentry != nil && (root.Mount != m || root.Dentry != m.root) {
			continue
		}
		i := MountInfo{ID: m.id, Parent: m.parent, Dev: m.fs.Dev(), Point: point, Type: m.fs.conf.Type, Source: m.source}
		i.Root = m.root.fsPath()
		i.Options, i.Super = m.options(), "rw"
		if m.fs.conf.ReadOnly {
			i.Super = "ro"
		}
		if m.fs.conf.Options != "" {
			i.Super += "," + m.fs.conf.Options
		}
		out = append(out, i)
	}
	return out
}

// fsPath is the path from the root of the file system.
func (d *Dentry) fsPath() string {
	s := ""
	for p := d.Parent(); p != d; d, p = p, p.Parent() {
		s = "/" + d.Name() + s
	}
	if s == "" {
		return "/"
	}
	return s
}

func (m *Mount) options() string {
	f := m.flags.Load()
	o := []string{"rw"}
	if m.ReadOnly() {
		o[0] = "ro"
	}
	for _, x := range []struct {
		flag uint32
		name string
	}{{linux.MS_NOSUID, "nosuid"}, {linux.MS_NODEV, "nodev"}, {linux.MS_NOEXEC, "noexec"}, {linux.MS_NOATIME, "noatime"}, {linux.MS_NODIRATIME, "nodiratime"}} {
		if f&x.flag != 0 {
			o = append(o, x.name)
		}
	}
	if f&linux.MS_NOATIME == 0 {
		o = append(o, "relatime")
	}
	return strings.Join(o, ",")
}
