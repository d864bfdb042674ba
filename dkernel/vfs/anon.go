package vfs

import (
	"strconv"

	"dinos/kernel/linux"
)

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// nameless is an inode with the one dentry that it has.
type nameless struct {
	Inode
	dentry Dentry
}

func (f *FS) nameless(name string, mode uint32, c *Caller) *Dentry {
	n := &nameless{}
	in := &n.Inode
	in.fs, in.ino = f, f.NextIno()
	now := f.v.Now()
	in.mode.Store(mode)
	if c != nil {
		in.uid.Store(c.Cred.FSUID)
		in.gid.Store(c.Cred.FSGID)
	}
	in.atime.Store(now)
	in.mtime.Store(now)
	in.ctime.Store(now)
	in.btime = now
	in.nlink.Store(1)
	in.refs.Store(1)
	return n.dentry.Init(nil, name, in)
}

// NewPipe makes the inode of a pipe, for both ends, each of which is made with NewNameless.
func (v *VFS) NewPipe(c *Caller) *Dentry { return v.pipes.nameless("pipe", linux.S_IFIFO|0o600, c) }

// NewSocket makes the inode of a socket.
func (v *VFS) NewSocket(c *Caller) *Dentry {
	return v.sockets.nameless("socket", linux.S_IFSOCK|0o777, c)
}

// NewAnon makes the inode of another file without a name; kind is what /proc/PID/fd shows: "[eventfd]" for anon_inode:[eventfd].
func (v *VFS) NewAnon(c *Caller, kind string) *Dentry {
	return v.anon.nameless("anon_inode:"+kind, 0o600, c)
}

// NewNameless opens a file without a name: f is its behaviour, flags the access mode and status flags, of which the Mode is
// derived; m adds to it (Stream). The description has one reference; install it with FDTable.Install.
func (c *Caller) NewNameless(dn *Dentry, f File, flags uint32, m Mode) *Description {
	dn.inode.Ref()
	d := c.FS.v.newDescription(c, Path{Dentry: dn}, flags&^linux.O_CLOEXEC, m|access(flags))
	d.file = f
	return d
}

// InstallAnon opens f, a stream without a name, as NewAnon and NewNameless do, and returns its new descriptor. f is released if there is none:
// linux.EMFILE.
func (c *Caller) InstallAnon(kind string, f File, flags uint32, cloexec bool) (int, error) {
	dn := c.FS.v.NewAnon(c, kind)
	d := c.NewNameless(dn, f, flags, Stream)
	dn.inode.Unref()
	fd, err := c.Files.Install(d, 0, c.OpenLimit, cloexec)
	if err != nil {
		d.Unref()
	}
	return fd, err
}

// label is the name of a file without a path.
func (d *Dentry) label() string {
	if n := d.Name(); n == "pipe" || n == "socket" {
		return n + ":[" + itoa(d.inode.ino) + "]"
	}
	return d.Name()
}
