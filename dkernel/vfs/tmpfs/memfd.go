package tmpfs

import (
	"strings"

	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// MemfdCreate is memfd_create(2): f is the file system that memfds are charged to. It returns the new descriptor.
func (f *FS) MemfdCreate(c *vfs.Caller, name string, flags uint32) (int, error) {
	const known = linux.MFD_CLOEXEC | linux.MFD_ALLOW_SEALING | linux.MFD_NOEXEC_SEAL | linux.MFD_EXEC
	if flags&^uint32(known) != 0 || flags&linux.MFD_EXEC != 0 && flags&linux.MFD_NOEXEC_SEAL != 0 {
		return 0, linux.EINVAL
	}
	const maxName = linux.NAME_MAX - len("memfd:")
	if len(name) > maxName || strings.IndexByte(name, 0) >= 0 {
		return 0, linux.EINVAL
	}
	mode := uint32(linux.S_IFREG | 0o777)
	if flags&linux.MFD_NOEXEC_SEAL != 0 {
		mode &^= 0o111
	}
	in, err := f.newInode(vfs.NewFile{Mode: mode, UID: c.Cred.FSUID, GID: c.Cred.FSGID, Now: f.v.Now()})
	if err != nil {
		return 0, err
	}
	file := in.Node().(*file)
	if flags&linux.MFD_ALLOW_SEALING != 0 {
		file.seals.Store(0)
	}
	if flags&linux.MFD_NOEXEC_SEAL != 0 {
		file.seals.Store(linux.F_SEAL_EXEC)
	}
	dn := new(vfs.Dentry).Init(nil, "/memfd:"+name+" (deleted)", in)
	dn.Forget()
	d := c.NewNameless(dn, file, linux.O_RDWR|linux.O_LARGEFILE, 0)
	in.SetNlink(0)
	in.Unref() // the link's; the description has its own
	fd, err := c.Files.Install(d, 0, c.OpenLimit, flags&linux.MFD_CLOEXEC != 0)
	if err != nil {
		d.Unref()
	}
	return fd, err
}
