package vfs

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// FSContext is root, working directory and umask of a process: fs_struct of Linux, shared by threads with CLONE_FS. Its methods may be
// called by several goroutines.
type FSContext struct {
	v     *VFS
	at    atomic.Pointer[places] // replaced as a whole, so that readers need no lock
	umask atomic.Uint32
	mu    sync.Mutex // serialises changes
}

type places struct{ root, cwd Path }

// NewFSContext is the context of the first process: root and working directory are the root of the tree.
func (v *VFS) NewFSContext() *FSContext { return v.NewFSContextAt(v.Root()) }

// NewFSContextAt is a context whose root and working directory are root.
func (v *VFS) NewFSContextAt(root Path) *FSContext {
	f := &FSContext{v: v}
	f.at.Store(&places{root, root})
	f.umask.Store(0o022)
	return f
}

// Fork returns a copy.
func (f *FSContext) Fork() *FSContext {
	n := &FSContext{v: f.v}
	n.at.Store(f.at.Load())
	n.umask.Store(f.umask.Load())
	return n
}

// VFS returns the VFS it is of.
func (f *FSContext) VFS() *VFS { return f.v }

// Root is the root directory.
func (f *FSContext) Root() Path { return f.at.Load().root }

// Cwd is the working directory.
func (f *FSContext) Cwd() Path { return f.at.Load().cwd }

// Umask is the file mode creation mask.
func (f *FSContext) Umask() uint32 { return f.umask.Load() }

// SetUmask is umask(2): it returns the old one.
func (f *FSContext) SetUmask(m uint32) uint32 { return f.umask.Swap(m & 0o777) }

func (f *FSContext) setCwd(p Path) {
	f.mu.Lock()
	f.at.Store(&places{f.at.Load().root, p})
	f.mu.Unlock()
}

func (f *FSContext) setRoot(p Path) {
	f.mu.Lock()
	f.at.Store(&places{p, f.at.Load().cwd})
	f.mu.Unlock()
}

// Chdir is chdir(2).
func (c *Caller) Chdir(path string) error {
	p, err := c.Walk(linux.AT_FDCWD, path, Follow|WantDir)
	if err != nil {
		return err
	}
	if err := p.Inode().Permit(c, 1); err != nil {
		return err
	}
	c.FS.setCwd(p)
	return nil
}

// Fchdir is fchdir(2).
func (c *Caller) Fchdir(fd int) error {
	r, err := c.Files.GetPath(fd)
	if err != nil {
		return err
	}
	defer r.Put()
	if !r.inode.IsDir() {
		return linux.ENOTDIR
	}
	if err := r.inode.Permit(c, 1); err != nil {
		return err
	}
	c.FS.setCwd(r.path)
	return nil
}

// Chroot is chroot(2).
func (c *Caller) Chroot(path string) error {
	p, err := c.Walk(linux.AT_FDCWD, path, Follow|WantDir)
	if err != nil {
		return err
	}
	if err := p.Inode().Permit(c, 1); err != nil {
		return err
	}
	if !c.Cred.Can(cred.SYS_CHROOT) {
		return linux.EPERM
	}
	c.FS.setRoot(p)
	return nil
}

// Getcwd is getcwd(2): the path without its final zero byte. linux.ENOENT if the directory was removed. One that the root
// does not reach begins with "(unreachable)".
func (c *Caller) Getcwd() (string, error) {
	at := c.FS.at.Load()
	if at.cwd.Dentry.Gone() {
		return "", linux.ENOENT
	}
	s, ok := at.cwd.From(at.root)
	if !ok {
		s = "(unreachable)" + s
	}
	return s, nil
}
