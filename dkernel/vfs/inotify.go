package vfs

import (
	"encoding/binary"
	"slices"
	"sync"

	"dinos/dkernel/uio"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// maxEvents is how many events wait at most (fs.inotify.max_queued_events), maxWatches how many watches there can be for
// one instance (fs.inotify.max_user_watches).
const (
	maxEvents  = 16384
	maxWatches = 65536
	eventSize  = 16
)

// watchList is who watches an inode. Lock order: watchList.mu, then Inotify.mu.
type watchList struct {
	mu   sync.Mutex
	list []*watch
}

type watch struct {
	by    *Inotify
	inode *Inode
	wd    int32
	mask  uint32 // guarded by the inode's watchList.mu
}

// Inotify is an inotify(7) instance.
type Inotify struct {
	BaseFile
	v     *VFS
	queue wait.Queue

	mu     sync.Mutex
	events []event // guarded by mu, as all below
	bytes  int
	wds    map[int32]*watch
	lastWD int32
}

type event struct {
	wd           int32
	mask, cookie uint32
	name         string
}

func (e *event) size() int {
	if e.name == "" {
		return eventSize
	}
	return eventSize + (len(e.name)+eventSize)/eventSize*eventSize
}

// InotifyInit is inotify_init1(2): flags are IN_CLOEXEC and IN_NONBLOCK.
func (c *Caller) InotifyInit(flags uint32) (int, error) {
	if flags&^uint32(linux.IN_CLOEXEC|linux.IN_NONBLOCK) != 0 {
		return 0, linux.EINVAL
	}
	f := &Inotify{v: c.FS.v, wds: map[int32]*watch{}}
	return c.InstallAnon("inotify", f, flags&linux.O_NONBLOCK, flags&linux.IN_CLOEXEC != 0)
}

// InotifyAdd is inotify_add_watch(2).
func (c *Caller) InotifyAdd(fd int, path string, mask uint32) (int, error) {
	if mask&(linux.IN_ALL_EVENTS|linux.IN_UNMOUNT|linux.IN_Q_OVERFLOW) == 0 || mask&linux.IN_MASK_ADD != 0 && mask&linux.IN_MASK_CREATE != 0 {
		return 0, linux.EINVAL
	}
	r, err := c.Files.Get(fd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	f, ok := r.file.(*Inotify)
	if !ok {
		return 0, linux.EINVAL
	}
	w := Follow
	if mask&linux.IN_DONT_FOLLOW != 0 {
		w = 0
	}
	if mask&linux.IN_ONLYDIR != 0 {
		w |= WantDir
	}
	p, err := c.Walk(linux.AT_FDCWD, path, w)
	if err != nil {
		return 0, err
	}
	in := p.Inode()
	if err := in.Permit(c, 4); err != nil {
		return 0, err
	}
	return f.add(in, mask)
}

func (f *Inotify) add(in *Inode, mask uint32) (int, error) {
	l := in.watches.Load()
	if l == nil {
		in.watches.CompareAndSwap(nil, &watchList{})
		l = in.watches.Load()
	}
	keep := mask & (linux.IN_ALL_EVENTS | linux.IN_ONESHOT | linux.IN_EXCL_UNLINK)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.list {
		if w.by != f {
			continue
		}
		if mask&linux.IN_MASK_CREATE != 0 {
			return 0, linux.EEXIST
		}
		if mask&linux.IN_MASK_ADD != 0 {
			keep |= w.mask
		}
		w.mask = keep
		return int(w.wd), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.wds) >= maxWatches {
		return 0, linux.ENOSPC
	}
	f.lastWD++
	w := &watch{by: f, inode: in, wd: f.lastWD, mask: keep}
	f.wds[w.wd] = w
	l.list = append(l.list, w)
	f.v.watches.Add(1)
	return int(w.wd), nil
}

// InotifyRemove is inotify_rm_watch(2).
func (c *Caller) InotifyRemove(fd int, wd int32) error {
	r, err := c.Files.Get(fd)
	if err != nil {
		return err
	}
	defer r.Put()
	f, ok := r.file.(*Inotify)
	if !ok {
		return linux.EINVAL
	}
	f.mu.Lock()
	w := f.wds[wd]
	f.mu.Unlock()
	if w == nil {
		return linux.EINVAL
	}
	l := w.inode.watches.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.drop(w) {
		return linux.EINVAL
	}
	return nil
}

// drop takes w out and says so to its instance. It reports whether it was there. mu is held.
func (l *watchList) drop(w *watch) bool {
	i := slices.Index(l.list, w)
	if i < 0 {
		return false
	}
	l.list = slices.Delete(l.list, i, i+1)
	f := w.by
	f.mu.Lock()
	delete(f.wds, w.wd)
	f.mu.Unlock()
	f.v.watches.Add(-1)
	f.push(event{wd: w.wd, mask: linux.IN_IGNORED})
	return true
}

// push enters an event.
func (f *Inotify) push(e event) {
	f.mu.Lock()
	n := len(f.events)
	if n > 0 && f.events[n-1] == e {
		f.mu.Unlock()
		return
	}
	if n >= maxEvents {
		if n > maxEvents {
			f.mu.Unlock()
			return
		}
		e = event{wd: -1, mask: linux.IN_Q_OVERFLOW}
	}
	f.events = append(f.events, e)
	f.bytes += e.size()
	f.mu.Unlock()
	f.queue.Wake(wait.Readable)
}

// Read implements File: whole events, as many as fit.
func (f *Inotify) Read(c *Caller, d *Description, io *uio.IO, _ *int64) (int64, error) {
	var n int64
	err := d.Sleeper(c).Until(&f.queue, wait.Readable, wait.Forever, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.events) == 0 {
			return linux.EAGAIN
		}
		if int64(f.events[0].size()) > io.Len() {
			return linux.EINVAL
		}
		return nil
	})
	for err == nil {
		f.mu.Lock()
		if len(f.events) == 0 || int64(f.events[0].size()) > io.Len() {
			f.mu.Unlock()
			break
		}
		e := f.events[0]
		f.events = f.events[1:]
		f.bytes -= e.size()
		f.mu.Unlock()
		b := make([]byte, e.size())
		binary.LittleEndian.PutUint32(b, uint32(e.wd))
		binary.LittleEndian.PutUint32(b[4:], e.mask)
		binary.LittleEndian.PutUint32(b[8:], e.cookie)
		binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-eventSize))
		copy(b[eventSize:], e.name)
		if _, err = io.Write(b); err == nil {
			n += int64(len(b))
		}
	}
	if n > 0 {
		return n, nil
	}
	if err == nil { // another reader was faster
		err = linux.EAGAIN
	}
	return 0, err
}

// Poll implements File.
func (f *Inotify) Poll(*Description) wait.Events {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.events) > 0 {
		return wait.Readable
	}
	return 0
}

// Queue implements File.
func (f *Inotify) Queue(*Description) *wait.Queue { return &f.queue }

// Ioctl implements File.
func (f *Inotify) Ioctl(c *Caller, d *Description, req uint32, arg uint64) (uint64, error) {
	if req != linux.FIONREAD {
		return 0, linux.ENOTTY
	}
	f.mu.Lock()
	n := f.bytes
	f.mu.Unlock()
	return 0, c.PutInt(arg, int32(n))
}

// Release implements File.
func (f *Inotify) Release(*Description) {
	f.mu.Lock()
	var all []*watch
	for _, w := range f.wds {
		all = append(all, w)
	}
	f.mu.Unlock()
	for _, w := range all {
		l := w.inode.watches.Load()
		l.mu.Lock()
		l.drop(w)
		l.mu.Unlock()
	}
}

// FDInfo implements FDInfoer.
func (f *Inotify) FDInfo(_ *Description, b []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	for wd, w := range f.wds {
		b = append(b, "inotify wd:"...)
		b = append(b, itoa(uint64(wd))...)
		b = append(b, " ino:"...)
		b = append(b, itoa(w.inode.ino)...)
		b = append(b, '\n')
	}
	return b
}

// watched tells whether somebody watches anything; it costs one load.
func (in *Inode) watched() bool { return in.fs.v.watches.Load() != 0 }

// fire tells the watchers of in. child is the dentry concerned if the event is about an entry of the directory in.
func (in *Inode) fire(mask uint32, name string, cookie uint32, child *Dentry) {
	l := in.watches.Load()
	if l == nil {
		return
	}
	l.mu.Lock()
	for i := 0; i < len(l.list); i++ {
		w := l.list[i]
		if w.mask&mask&linux.IN_ALL_EVENTS == 0 {
			continue
		}
		if w.mask&linux.IN_EXCL_UNLINK != 0 && child != nil && child.gone.Load() && mask&(linux.IN_DELETE|linux.IN_MOVED_FROM) == 0 {
			continue
		}
		w.by.push(event{w.wd, mask, cookie, name})
		if w.mask&linux.IN_ONESHOT != 0 {
			l.drop(w)
			i--
		}
	}
	l.mu.Unlock()
}

// notifyInode tells who watches in itself.
func (v *VFS) notifyInode(in *Inode, mask uint32) {
	if v.watches.Load() == 0 {
		return
	}
	if in.IsDir() {
		mask |= linux.IN_ISDIR
	}
	in.fire(mask, "", 0, nil)
}

// notifyDir tells who watches the directory dir of something about its entry name.
func (v *VFS) notifyDir(dir *Dentry, mask uint32, name string, cookie uint32) {
	if v.watches.Load() != 0 {
		dir.inode.fire(mask, name, cookie, nil)
	}
}

// notifyPath tells who watches the file at p, or its directory.
func (v *VFS) notifyPath(p Path, mask uint32) {
	if v.watches.Load() == 0 {
		return
	}
	d := p.Dentry
	if d.inode.IsDir() {
		mask |= linux.IN_ISDIR
	}
	if dir := d.Parent(); dir != d {
		dir.inode.fire(mask, d.Name(), 0, d)
	}
	d.inode.fire(mask, "", 0, nil)
}

func (d *Description) notify(mask uint32) { d.inode.fs.v.notifyPath(d.path, mask) }

// moved tells of a rename of child.
func (v *VFS) moved(from *Dentry, oldName string, to *Dentry, newName string, child *Dentry) {
	if v.watches.Load() == 0 {
		return
	}
	var isDir uint32
	if child.inode.IsDir() {
		isDir = linux.IN_ISDIR
	}
	cookie := v.cookies.Add(1)
	from.inode.fire(linux.IN_MOVED_FROM|isDir, oldName, cookie, nil)
	to.inode.fire(linux.IN_MOVED_TO|isDir, newName, cookie, nil)
	// MOVE_SELF has no IN_ISDIR, unlike the other events about a directory itself (include/linux/fsnotify.h, fsnotify_move).
	child.inode.fire(linux.IN_MOVE_SELF, "", 0, nil)
}

// selfDeleted tells that in is gone for good.
func (in *Inode) selfDeleted() {
	l := in.watches.Load()
	if l == nil {
		return
	}
	in.fire(linux.IN_DELETE_SELF, "", 0, nil)
	l.mu.Lock()
	for len(l.list) > 0 {
		l.drop(l.list[0])
	}
	l.mu.Unlock()
}
