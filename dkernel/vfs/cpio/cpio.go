// Package cpio fills a file system from a cpio archive of the "new" format (SVR4, newc; with checksums as well): the initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). Several archives may follow each other, with zeros between them.
//
// An archive is an allegation: all of it is checked, an error says at which byte and for which name, and what the archive says
// can only ever change the file system it is unpacked into. Contents of files stay in the archive until they are written to.
package cpio

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cavaliergopher/cpio"

	"dinos/dkernel/cred"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/tmpfs"
	"dinos/kernel/linux"
)

// Stats says what was unpacked.
type Stats struct {
	Files, Dirs, Links, Others int
	Bytes                      int64 // of contents
}

// Error is what is wrong with an archive.
type Error struct {
	Offset int64  // of the entry in the archive
	Name   string // of the entry, if it got that far
	Err    error
}

// Error implements error.
func (e *Error) Error() string {
	s := "cpio archive, byte " + strconv.FormatInt(e.Offset, 10)
	if e.Name != "" {
		s += ", " + strconv.Quote(e.Name)
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// headerSize is that of an entry's fixed part, and magicSize of its beginning.
const (
	headerSize = 110
	magicSize  = 6
	maxDepth   = 256 // parts of a name
)

// archive is a reader of one that knows where it is.
type archive struct {
	data []byte
	pos  int64
}

// Read implements io.Reader.
func (a *archive) Read(p []byte) (int, error) {
	if a.pos >= int64(len(a.data)) {
		return 0, io.EOF
	}
	n := copy(p, a.data[a.pos:])
	a.pos += int64(n)
	return n, nil
}

// entry is a file in an archive.
type entry struct {
	*cpio.Header
	at         int64
	rdev       uint64
	major, dev uint32 // of the file system it was on, which together with Inode tells hard links
	data       []byte
}

// link tells hard links apart.
type link struct {
	major, minor uint32
	inode        int64
}

// unpacker has what an archive has made so far.
type unpacker struct {
	c     *vfs.Caller
	stats Stats
	links map[link]string
}

// Unpack adds the files of an archive to f, which is mounted. data must not change as long as f exists. The error is an *Error; what came
// before the mistake stays in f.
func Unpack(v *vfs.VFS, f *tmpfs.FS, data []byte) (Stats, error) {
	root, err := v.Find(f.FS)
	if err != nil {
		return Stats{}, err
	}
	u := &unpacker{
		c:     &vfs.Caller{Cred: cred.Root(), FS: v.NewFSContextAt(root), Files: vfs.NewFDTable(), FileSizeLimit: vfs.Unlimited, OpenLimit: 16},
		links: map[link]string{},
	}
	u.c.FS.SetUmask(0)
	a := &archive{data: data}
	for {
		e, err := a.next()
		if err == io.EOF {
			return u.stats, nil
		}
		if err == nil {
			err = u.add(e)
		}
		if err != nil {
			x := &Error{Offset: a.pos, Err: err}
			if e != nil {
				x.Offset, x.Name = e.at, e.Name
			}
			return u.stats, x
		}
	}
}

// Errors of archives.
var (
	errShort  = errors.New("the archive ends in the middle of an entry")
	errMagic  = errors.New(`no entry of the format "newc" begins here (want 070701 or 070702)`)
	errHex    = errors.New("the header has something else than hexadecimal digits")
	errName   = errors.New("the name is empty, has a zero byte, or is not ended by one")
	errDots   = errors.New(`the name has a part ".."`)
	errParts  = errors.New("the name has too many parts")
	errNoType = errors.New("the mode has no file type that exists")
	errSum    = errors.New("the checksum is wrong")
	errTarget = errors.New("the target of the link is empty, too long or has a zero byte")
)

// next reads an entry. io.EOF is the proper end; an entry with an error tells what it was called.
func (a *archive) next() (*entry, error) {
	for {
		for a.pos < int64(len(a.data)) && a.data[a.pos] == 0 { // between archives
			a.pos++
		}
		left := a.data[a.pos:]
		if len(left) == 0 {
			return nil, io.EOF
		}
		if len(left) < headerSize {
			return nil, errShort
		}
		if m := string(left[:magicSize]); m != "070701" && m != "070702" {
			return nil, errMagic
		}
		// The library takes what is no number for 0.
		for _, b := range left[magicSize:headerSize] {
			if !(b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F') {
				return nil, errHex
			}
		}
		e, err := a.entry(left)
		if err != io.EOF {
			return e, err
		}
		// TRAILER!!!: another archive may follow.
		a.align()
	}
}

func (a *archive) align() { a.pos = min((a.pos+3)&^3, int64(len(a.data))) }

// entry decodes the entry that left begins with.
func (a *archive) entry(left []byte) (*entry, error) {
	at := a.pos
	// A reader of its own for each entry: so the library reads no data, which stays where it is.
	h, err := cpio.NewReader(a).Next()
	if err == io.ErrUnexpectedEOF || err == io.EOF && a.pos == int64(len(a.data)) && !a.trailer(at) {
		return nil, errShort
	}
	if err != nil {
		return nil, err
	}
	field := func(i int) uint32 {
		n, _ := strconv.ParseUint(string(left[magicSize+8*i:magicSize+8*i+8]), 16, 32) // digits, as next has checked
		return uint32(n)
	}
	e := &entry{Header: h, at: at, major: field(7), dev: field(8), rdev: vfs.MkDev(field(9), field(10))}
	size := int64(field(6))
	if nameSize := int64(field(11)); left[headerSize+nameSize-1] != 0 || h.Name == "" || strings.IndexByte(h.Name, 0) >= 0 {
		return e, errName
	}
	if h.Mode&cpio.ModeType == cpio.TypeSymlink && h.Linkname != "" {
		a.align() // the library has read the target, but not what fills it up
		return e, nil
	}
	if size > int64(len(a.data))-a.pos {
		return e, errShort
	}
	e.data = a.data[a.pos : a.pos+size : a.pos+size]
	a.pos += size
	a.align()
	return e, e.check(left[magicSize-1] == '2')
}

// trailer tells whether the entry at at is the last of an archive.
func (a *archive) trailer(at int64) bool {
	const name = "TRAILER!!!\x00"
	return int64(len(a.data))-at >= headerSize+int64(len(name)) && string(a.data[at+headerSize:at+headerSize+int64(len(name))]) == name
}

// check verifies the checksum of contents that have one: the sum of the bytes.
func (e *entry) check(summed bool) error {
	if !summed || e.Mode&cpio.ModeType != cpio.TypeReg {
		return nil
	}
	h := cpio.NewHash()
	_, _ = h.Write(e.data)
	if h.Sum32() != e.Checksum {
		return errSum
	}
	return nil
}

// clean makes an absolute path of a name in the archive.
func clean(name string) (string, error) {
	parts := strings.Split(name, "/")
	if len(parts) > maxDepth {
		return "", errParts
	}
	out := parts[:0]
	for _, p := range parts {
		switch p {
		case "", ".":
			continue
		case "..":
			return "", errDots
		}
		out = append(out, p)
	}
	return "/" + strings.Join(out, "/"), nil
}

// add makes the file of an entry. What has its name is replaced, as by the kernel's own unpacker; a directory stays.
func (u *unpacker) add(e *entry) error {
	path, err := clean(e.Name)
	if err != nil {
		return err
	}
	if err := u.parents(path); err != nil {
		return err
	}
	mode := uint32(e.Mode)
	if path == "/" && mode&linux.S_IFMT != linux.S_IFDIR {
		return linux.EISDIR
	}
	if path != "/" {
		if done, err := u.clear(path, mode, e); done || err != nil {
			return err
		}
	}
	c := u.c
	switch mode & linux.S_IFMT {
	case linux.S_IFDIR:
		if err := c.MkdirAt(linux.AT_FDCWD, path, mode&0o777); err != nil && err != linux.EEXIST {
			return err
		}
		u.stats.Dirs++
	case linux.S_IFREG:
		err = u.file(path, mode, e)
	case linux.S_IFLNK:
		target := e.Linkname
		if target == "" || strings.IndexByte(target, 0) >= 0 || len(target) >= linux.PATH_MAX {
			return errTarget
		}
		err = c.SymlinkAt(target, linux.AT_FDCWD, path)
		u.stats.Links++
	case linux.S_IFCHR, linux.S_IFBLK, linux.S_IFIFO, linux.S_IFSOCK:
		err = c.MknodAt(linux.AT_FDCWD, path, mode&(linux.S_IFMT|0o777), e.rdev)
		u.stats.Others++
	default:
		return errNoType
	}
	if err != nil {
		return err
	}
	return u.attrs(path, mode, e)
}

// parents makes the directories above path that the archive has not.
func (u *unpacker) parents(path string) error {
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			if err := u.c.MkdirAt(linux.AT_FDCWD, path[:i], 0o755); err != nil && err != linux.EEXIST {
				return err
			}
		}
	}
	return nil
}

// clear takes away what is at path, or makes path another name of a file that the archive had before: then done.
func (u *unpacker) clear(path string, mode uint32, e *entry) (done bool, err error) {
	var a vfs.Attr
	if u.c.StatAt(linux.AT_FDCWD, path, linux.AT_SYMLINK_NOFOLLOW, &a) == nil {
		switch {
		case a.Mode&linux.S_IFMT == linux.S_IFDIR && mode&linux.S_IFMT == linux.S_IFDIR:
			return false, nil
		case a.Mode&linux.S_IFMT == linux.S_IFDIR:
			err = u.c.UnlinkAt(linux.AT_FDCWD, path, linux.AT_REMOVEDIR)
		default:
			err = u.c.UnlinkAt(linux.AT_FDCWD, path, 0)
		}
		if err != nil {
			return false, err
		}
	}
	if e.Links < 2 || mode&linux.S_IFMT != linux.S_IFREG {
		return false, nil
	}
	key := link{e.major, e.dev, e.Inode}
	first, ok := u.links[key]
	if !ok || first == path {
		u.links[key] = path
		return false, nil
	}
	if err := u.c.LinkAt(linux.AT_FDCWD, first, linux.AT_FDCWD, path, 0); err != nil {
		if err == linux.ENOENT { // the first name was replaced meanwhile
			u.links[key] = path
			return false, nil
		}
		return false, err
	}
	u.stats.Files++
	if len(e.data) == 0 {
		return true, nil
	}
	// The last link has the contents, the others were empty.
	return true, u.contents(path, e)
}

func (u *unpacker) file(path string, mode uint32, e *entry) error {
	if err := u.c.MknodAt(linux.AT_FDCWD, path, linux.S_IFREG|mode&0o777, 0); err != nil {
		return err
	}
	u.stats.Files++
	if len(e.data) == 0 {
		return nil
	}
	return u.contents(path, e)
}

func (u *unpacker) contents(path string, e *entry) error {
	p, err := u.c.Walk(linux.AT_FDCWD, path, 0)
	if err != nil {
		return err
	}
	u.stats.Bytes += int64(len(e.data))
	if err := tmpfs.SetContents(p.Inode(), e.data); err != nil {
		return fmt.Errorf("contents of a file that has some: %w", err)
	}
	return nil
}

// attrs sets owner, mode and time.
func (u *unpacker) attrs(path string, mode uint32, e *entry) error {
	c := u.c
	if err := c.FchownAt(linux.AT_FDCWD, path, uint32(e.Uid), uint32(e.Guid), linux.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if mode&linux.S_IFMT != linux.S_IFLNK {
		if err := c.FchmodAt(linux.AT_FDCWD, path, mode&0o7777, 0); err != nil {
			return err
		}
	}
	t := linux.Timespec{Sec: e.ModTime.Unix()}
	return c.UtimensAt(linux.AT_FDCWD, path, false, &[2]linux.Timespec{t, t}, linux.AT_SYMLINK_NOFOLLOW)
}
