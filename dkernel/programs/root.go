package programs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/cpio"
	"dinos/dkernel/vfs/tmpfs"
	"dinos/kernel/linux"
)

// rootsDir has the mount points of root directories that programs brought.
const rootsDir = "/run/roots"

// maxArchive bounds an archive: it is in the kernel's own memory while it is unpacked, and after that as long as files were not written to.
const maxArchive = 512 << 20

// NewRoot gives c a root directory of its own: a tmpfs with the contents of the archive (cpio) at the path, and with /dev and /proc,
// and /sys if the archive has that directory. c must be root, with file-system context of its own. Release, which is never nil without an error, takes it away when nobody uses it any more.
func (p *Programs) NewRoot(c *vfs.Caller, archive string) (release func(), err error) {
	k := p.Caller()
	data, err := readFile(k, archive)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", archive, err)
	}
	if err := k.MkdirAt(linux.AT_FDCWD, rootsDir, 0o700); err != nil && err != linux.EEXIST {
		return nil, fmt.Errorf("%s: %w", rootsDir, err)
	}
	dir := fmt.Sprintf("%s/%d", rootsDir, p.roots.Add(1))
	root := tmpfs.New(p.VFS, tmpfs.Config{Mode: 0o755})
	if err := p.mount(k, root.FS, dir, "root", 0); err != nil {
		return nil, err
	}
	release = func() {
		for _, m := range slices.Backward(p.kernelMounts) {
			_ = k.UmountAt(dir+m.path, linux.MNT_DETACH)
		}
		empty(k, dir) // the memory of a tmpfs is that of its files
		_ = k.UmountAt(dir, linux.MNT_DETACH)
		_ = k.UnlinkAt(linux.AT_FDCWD, dir, linux.AT_REMOVEDIR)
	}
	if _, err := cpio.Unpack(p.VFS, root, data); err != nil {
		release()
		return nil, fmt.Errorf("unpack %s: %w", archive, err)
	}
	for _, m := range p.kernelMounts {
		if m.kind == "sysfs" && k.StatAt(linux.AT_FDCWD, dir+m.path, 0, &vfs.Attr{}) != nil {
			continue // programs need the others
		}
		if err = p.mount(k, m.fs, dir+m.path, m.kind, m.flags); err != nil {
			release()
			return nil, err
		}
	}
	if err = c.Chdir(dir); err == nil {
		err = c.Chroot(".")
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("chroot to %s: %w", dir, err)
	}
	return release, nil
}

// empty removes what is in a directory, as far as that can be done.
func empty(k *vfs.Caller, dir string) {
	fd, err := k.OpenAt(linux.AT_FDCWD, dir, linux.O_RDONLY|linux.O_DIRECTORY|linux.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	type entry struct {
		name string
		dir  bool
	}
	var list []entry
	if d := k.Files.Lookup(fd); d != nil {
		if r, ok := d.File().(vfs.DirReader); ok {
			_, _ = r.ReadDir(k, d, 0, func(e vfs.Dirent) bool {
				if e.Name != "." && e.Name != ".." {
					list = append(list, entry{strings.Clone(e.Name), e.Type == linux.DT_DIR})
				}
				return true
			})
		}
		d.Unref()
	}
	_ = k.Files.Close(k, fd)
	for _, e := range list {
		name, flags := dir+"/"+e.name, 0
		if e.dir {
			empty(k, name)
			flags = linux.AT_REMOVEDIR
		}
		_ = k.UnlinkAt(linux.AT_FDCWD, name, flags)
	}
}

// readFile reads a whole file.
func readFile(k *vfs.Caller, name string) ([]byte, error) {
	fd, err := k.OpenAt(linux.AT_FDCWD, name, linux.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer k.Files.Close(k, fd)
	var st vfs.Attr
	if err := k.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&linux.S_IFMT != linux.S_IFREG {
		return nil, errors.New("no regular file: want an archive (cpio)")
	}
	if st.Size > maxArchive {
		return nil, fmt.Errorf("%d bytes: want an archive of at most %d", st.Size, maxArchive)
	}
	b := make([]byte, st.Size)
	for n := 0; n < len(b); {
		var io uio.IO
		io.Bytes(b[n:])
		m, err := k.Read(fd, &io)
		if err != nil {
			return nil, err
		}
		if m == 0 {
			return nil, errors.New("it became shorter while it was read")
		}
		n += int(m)
	}
	return b, nil
}
