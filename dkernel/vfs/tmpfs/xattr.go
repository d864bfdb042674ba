package tmpfs

import (
	"bytes"
	"slices"
	"sync"

	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// maxXattrs is how many bytes of extended attributes a file can have.
const maxXattrs = 1 << 20

// xattrs are the extended attributes of a file.
type xattrs struct {
	xmu    sync.Mutex
	values map[string][]byte // guarded by xmu
	bytes  int               // guarded by xmu
}

// GetXattr implements vfs.Xattrer.
func (x *xattrs) GetXattr(_ *vfs.Inode, name string) ([]byte, error) {
	x.xmu.Lock()
	defer x.xmu.Unlock()
	v, ok := x.values[name]
	if !ok {
		return nil, linux.ENODATA
	}
	return bytes.Clone(v), nil
}

// SetXattr implements vfs.Xattrer.
func (x *xattrs) SetXattr(_ *vfs.Inode, name string, value []byte, flags int) error {
	x.xmu.Lock()
	defer x.xmu.Unlock()
	old, ok := x.values[name]
	switch {
	case ok && flags&linux.XATTR_CREATE != 0:
		return linux.EEXIST
	case !ok && flags&linux.XATTR_REPLACE != 0:
		return linux.ENODATA
	}
	n := x.bytes + len(value) - len(old)
	if !ok {
		n += len(name)
	}
	if n > maxXattrs {
		return linux.ENOSPC
	}
	if x.values == nil {
		x.values = map[string][]byte{}
	}
	x.values[name] = bytes.Clone(value)
	x.bytes = n
	return nil
}

// RemoveXattr implements vfs.Xattrer.
func (x *xattrs) RemoveXattr(_ *vfs.Inode, name string) error {
	x.xmu.Lock()
	defer x.xmu.Unlock()
	v, ok := x.values[name]
	if !ok {
		return linux.ENODATA
	}
	delete(x.values, name)
	x.bytes -= len(name) + len(v)
	return nil
}

// ListXattr implements vfs.Xattrer.
func (x *xattrs) ListXattr(*vfs.Inode) []string {
	x.xmu.Lock()
	defer x.xmu.Unlock()
	var names []string
	for n := range x.values {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
