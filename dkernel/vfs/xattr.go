package vfs

import (
	"strings"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// XattrTarget is the file of a call of the xattr family: a path, of which a link at the end is followed or not, or a descriptor.
type XattrTarget struct {
	Path     string
	NoFollow bool
	FD       int // if UseFD
	UseFD    bool
}

func (c *Caller) xattr(t XattrTarget, name string, write bool, do func(Path, Xattrer) error) error {
	use := func(p Path) error {
		if write {
			if err := p.Mount.writable(); err != nil {
				return err
			}
		}
		if name != "" {
			if err := c.mayXattr(p.Inode(), name, write); err != nil {
				return err
			}
		}
		x, ok := p.Inode().node.(Xattrer)
		if !ok {
			if name == "" {
				return do(p, noXattrs{})
			}
			return linux.EOPNOTSUPP
		}
		return do(p, x)
	}
	if t.UseFD {
		r, err := c.Files.Get(t.FD)
		if err != nil {
			return err
		}
		defer r.Put()
		return use(r.path)
	}
	f := Follow
	if t.NoFollow {
		f = 0
	}
	p, err := c.Walk(linux.AT_FDCWD, t.Path, f)
	if err != nil {
		return err
	}
	return use(p)
}

// mayXattr is the check of xattr(7): who may use attributes of a class.
func (c *Caller) mayXattr(in *Inode, name string, write bool) error {
	if len(name) > linux.XATTR_NAME_MAX {
		return linux.ERANGE
	}
	class, rest, dot := strings.Cut(name, ".")
	refused := linux.ENODATA
	if write {
		refused = linux.EPERM
	}
	switch class {
	case "trusted":
		if !c.Cred.Can(cred.SYS_ADMIN) {
			return refused
		}
	case "security":
		if write && !c.Cred.Can(cred.SYS_ADMIN) && !in.owned(c) {
			return linux.EPERM
		}
	case "system":
		return linux.EOPNOTSUPP // POSIX ACLs
	case "user":
		if t := in.Type(); t != linux.S_IFREG && t != linux.S_IFDIR {
			return refused
		}
		if in.IsDir() && in.Mode()&linux.S_ISVTX != 0 && write && !in.owned(c) {
			return linux.EPERM
		}
		fallthrough
	default:
		want := uint32(4)
		if write {
			want = 2
		}
		if err := in.Permit(c, want); err != nil {
			return err
		}
		if class != "user" || !dot {
			return linux.EOPNOTSUPP
		}
	}
	if rest == "" {
		return linux.EINVAL
	}
	return nil
}

// noXattrs is for files of file systems without extended attributes: listing says that there are none.
type noXattrs struct{}

func (noXattrs) GetXattr(*Inode, string) ([]byte, error)    { return nil, linux.EOPNOTSUPP }
func (noXattrs) SetXattr(*Inode, string, []byte, int) error { return linux.EOPNOTSUPP }
func (noXattrs) RemoveXattr(*Inode, string) error           { return linux.EOPNOTSUPP }
func (noXattrs) ListXattr(*Inode) []string                  { return nil }

// GetXattr is getxattr(2), lgetxattr(2), fgetxattr(2): size is the room for the value; 0 asks for its length only. The error is
// linux.ERANGE if it does not fit.
func (c *Caller) GetXattr(t XattrTarget, name string, size int) (value []byte, err error) {
	if name == "" {
		return nil, linux.ERANGE
	}
	err = c.xattr(t, name, false, func(p Path, x Xattrer) error {
		value, err = x.GetXattr(p.Inode(), name)
		return err
	})
	if err == nil && size > 0 && len(value) > size {
		return nil, linux.ERANGE
	}
	return value, err
}

// SetXattr is setxattr(2) and its variants.
func (c *Caller) SetXattr(t XattrTarget, name string, value []byte, flags int) error {
	switch {
	case flags&^(linux.XATTR_CREATE|linux.XATTR_REPLACE) != 0:
		return linux.EINVAL
	case name == "":
		return linux.ERANGE
	case len(value) > linux.XATTR_SIZE_MAX:
		return linux.E2BIG
	}
	name = strings.Clone(name)
	return c.xattr(t, name, true, func(p Path, x Xattrer) error {
		in := p.Inode()
		in.attr.Lock()
		err := x.SetXattr(in, name, value, flags)
		in.attr.Unlock()
		if err == nil {
			in.Changed()
			c.FS.v.notifyPath(p, linux.IN_ATTRIB)
		}
		return err
	})
}

// RemoveXattr is removexattr(2) and its variants.
func (c *Caller) RemoveXattr(t XattrTarget, name string) error {
	if name == "" {
		return linux.ERANGE
	}
	return c.xattr(t, name, true, func(p Path, x Xattrer) error {
		in := p.Inode()
		in.attr.Lock()
		err := x.RemoveXattr(in, name)
		in.attr.Unlock()
		if err == nil {
			in.Changed()
			c.FS.v.notifyPath(p, linux.IN_ATTRIB)
		}
		return err
	})
}

// ListXattr is listxattr(2) and its variants: the names, each with a zero byte behind. size as for GetXattr.
func (c *Caller) ListXattr(t XattrTarget, size int) (names []byte, err error) {
	err = c.xattr(t, "", false, func(p Path, x Xattrer) error {
		for _, n := range x.ListXattr(p.Inode()) {
			if strings.HasPrefix(n, "trusted.") && !c.Cred.Can(cred.SYS_ADMIN) {
				continue
			}
			names = append(append(names, n...), 0)
		}
		return nil
	})
	if err == nil && size > 0 && len(names) > size {
		return nil, linux.ERANGE
	}
	return names, err
}
