// Package park is what the blocking operations of dkernel/ipc have in common.
package park

import (
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Sleeper is what an operation on d sleeps with, nil if it may not.
func Sleeper(c *vfs.Caller, d *vfs.Description) *wait.Sleeper {
	if d.Nonblock() {
		return nil
	}
	return c.Sleeper
}

// Until is wait.Sleeper.Until. If s is nil it tries once.
func Until(s *wait.Sleeper, q *wait.Queue, mask wait.Events, deadline int64, try func() error) error {
	if s == nil {
		return try()
	}
	return s.Until(q, mask, deadline, try)
}

// Flags returns the status flags and whether to close on exec, of the flags that the calls which make descriptors know:
// O_NONBLOCK and O_CLOEXEC, by their names of EFD_NONBLOCK, SOCK_CLOEXEC and so on. linux.EINVAL for others.
func Flags(flags uint32) (status uint32, cloexec bool, err error) {
	if flags&^(linux.O_CLOEXEC|linux.O_NONBLOCK) != 0 {
		return 0, false, linux.EINVAL
	}
	return flags & linux.O_NONBLOCK, flags&linux.O_CLOEXEC != 0, nil
}

// Install gives f, of kind, a new description and a descriptor, which it returns. The description is released after an error.
func Install(c *vfs.Caller, kind string, f vfs.File, flags uint32, cloexec bool) (int, error) {
	dn := c.FS.VFS().NewAnon(c, kind)
	d := c.NewNameless(dn, f, flags, vfs.Stream)
	dn.Inode().Unref()
	fd, err := c.Files.Install(d, 0, c.OpenLimit, cloexec)
	if err != nil {
		d.Unref()
	}
	return fd, err
}
