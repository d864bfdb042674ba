package vfs

import (
	"dinos/dkernel/frame"
	"dinos/dkernel/mm"
	"dinos/kernel/linux"
)

// Pager is a File with pages that programs can map: what mm.Object wants of the contents. Descriptions of one inode have the
// same Pager, or equal ones.
type Pager interface {
	// Page, Cached, Sync, Notify and Mappings are those of mm.Object.
	Page(index uint64, write bool) (frame.Frame, error)
	Cached(index uint64, dst []frame.Frame)
	Sync(first, last uint64, wait bool) error
	Notify() bool
	Mappings() *mm.Mappings
	// Sealed tells whether new shared mappings may not write.
	Sealed() bool
}

// AnonymousMapper is a File whose mappings are anonymous memory: /dev/zero.
type AnonymousMapper interface{ MapsAnonymous() }

// PagerOf is a File whose Pager is not itself.
type PagerOf interface{ Pager(d *Description) Pager }

// object is a Description as mm sees it.
type object Description

// Object returns what mmap(2) of fd maps: shared tells MAP_SHARED, prot are the PROT_* bits. The caller gives back a reference
// with Release when mm has its own. A nil Object without an error means that the mapping is anonymous memory (/dev/zero): map with
// MAP_ANONYMOUS. Errors: linux.EBADF, EACCES, ENODEV, EPERM (sealed, or noexec).
func (c *Caller) Object(fd int, shared bool, prot int) (mm.Object, error) {
	r, err := c.Files.Get(fd)
	if err != nil {
		return nil, err
	}
	defer r.Put()
	return r.Object(shared, prot)
}

// Object is Caller.Object of a description.
func (d *Description) Object(shared bool, prot int) (mm.Object, error) {
	const write, exec = 2, 4
	if d.mode&Readable == 0 || shared && prot&write != 0 && d.mode&Writable == 0 {
		return nil, linux.EACCES
	}
	p := d.pager()
	if p == nil {
		if _, ok := d.file.(AnonymousMapper); ok {
			return nil, nil
		}
		return nil, linux.ENODEV
	}
	if shared && prot&write != 0 && p.Sealed() || prot&exec != 0 && d.path.Mount != nil && d.path.Mount.Flags()&linux.MS_NOEXEC != 0 {
		return nil, linux.EPERM
	}
	if d.path.Mount != nil || d.inode.Type() == linux.S_IFREG {
		d.inode.Accessed(d)
	}
	d.Ref()
	return (*object)(d), nil
}

func (d *Description) pager() Pager {
	if p, ok := d.file.(Pager); ok {
		return p
	}
	if p, ok := d.file.(PagerOf); ok {
		return p.Pager(d)
	}
	return nil
}

// mapID makes numbers of contents for mm that mm's own do not reach.
const mapID = 1 << 62

// ID implements mm.Object.
func (o *object) ID() uint64 {
	in := o.inode
	if id := in.mapped.Load(); id != 0 {
		return id
	}
	in.mapped.CompareAndSwap(0, mapID|in.fs.v.mapIDs.Add(1))
	return in.mapped.Load()
}

// Access implements mm.Object.
func (o *object) Access() mm.Access {
	var a mm.Access
	if o.mode&Readable != 0 {
		a |= mm.MayRead
	}
	if o.mode&Writable != 0 && !(*Description)(o).pager().Sealed() {
		a |= mm.MayWrite
	}
	if m := o.path.Mount; m != nil && m.Flags()&linux.MS_NOEXEC != 0 {
		a |= mm.NoExec
	}
	return a
}

// Info implements mm.Object.
func (o *object) Info() mm.Info {
	in := o.inode
	return mm.Info{Name: o.path.String(), Major: Major(in.fs.dev), Minor: Minor(in.fs.dev), Inode: in.ino}
}

// Page implements mm.Object.
func (o *object) Page(i uint64, write bool) (frame.Frame, error) {
	return (*Description)(o).pager().Page(i, write)
}

// Cached implements mm.Object.
func (o *object) Cached(i uint64, dst []frame.Frame) { (*Description)(o).pager().Cached(i, dst) }

// Sync implements mm.Object.
func (o *object) Sync(first, last uint64, wait bool) error {
	return (*Description)(o).pager().Sync(first, last, wait)
}

// Notify implements mm.Object.
func (o *object) Notify() bool { return (*Description)(o).pager().Notify() }

// Mappings implements mm.Object.
func (o *object) Mappings() *mm.Mappings { return (*Description)(o).pager().Mappings() }

// Punch implements mm.Puncher: MADV_REMOVE.
func (o *object) Punch(off, n uint64) error {
	d := (*Description)(o)
	a, ok := d.file.(Allocator)
	if !ok {
		return linux.EOPNOTSUPP
	}
	if d.mode&Writable == 0 {
		return linux.EACCES
	}
	if int64(off) < 0 || int64(n) < 0 || int64(off+n) < 0 {
		return linux.EINVAL
	}
	return a.Allocate(&Caller{FileSizeLimit: Unlimited}, d, linux.FALLOC_FL_PUNCH_HOLE|linux.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
}

// Retain implements mm.Object.
func (o *object) Retain() { (*Description)(o).Ref() }

// Release implements mm.Object.
func (o *object) Release() { (*Description)(o).Unref() }
