package vfs

import (
	"strings"

	"dinos/kernel/linux"
)

// WalkFlags say how a path is resolved.
type WalkFlags uint32

// The flags.
const (
	Follow     WalkFlags = 1 << iota // a symbolic link at the end
	WantDir                          // linux.ENOTDIR for anything else
	EmptyPath                        // "" is what dirfd refers to (AT_EMPTY_PATH)
	NoXDev                           // RESOLVE_NO_XDEV
	NoMagic                          // RESOLVE_NO_MAGICLINKS
	NoSymlinks                       // RESOLVE_NO_SYMLINKS
	Beneath                          // RESOLVE_BENEATH
	InRoot                           // RESOLVE_IN_ROOT
)

// walk is a resolution under way (path_resolution(7)).
type walk struct {
	c     *Caller
	at    Path
	root  Path
	flags WalkFlags
	links int
}

// last is the final part of a path whose directory was found.
type last struct {
	name  string // "" if the path ended before it: "/"
	slash bool   // slashes follow it
}

// plain tells whether it is a name, and not the root, "." or "..".
func (l last) plain() bool { return l.name != "" && l.name != "." && l.name != ".." }

// start sets the walk to where path begins.
func (w *walk) start(c *Caller, dirfd int, path string, flags WalkFlags) error {
	w.c, w.flags, w.links = c, flags, 0
	if len(path) >= linux.PATH_MAX {
		return linux.ENAMETOOLONG
	}
	if path == "" && flags&EmptyPath == 0 {
		return linux.ENOENT
	}
	at := c.FS.at.Load()
	w.root = at.root
	confined := flags&(Beneath|InRoot) != 0
	if path != "" && path[0] == '/' && !confined {
		w.at = at.root
		return nil
	}
	if dirfd == linux.AT_FDCWD {
		w.at = at.cwd
	} else {
		r, err := c.Files.GetPath(dirfd)
		if err != nil {
			return err
		}
		w.at = r.path
		in := r.inode
		r.Put()
		if path != "" && !in.IsDir() {
			return linux.ENOTDIR
		}
	}
	if confined {
		if path != "" && path[0] == '/' && flags&Beneath != 0 {
			return linux.EXDEV
		}
		w.root = w.at
	}
	return nil
}

// to resolves all of path.
func (w *walk) to(path string) error {
	_, err := w.run(path, false)
	return err
}

// dirOf resolves path but for its last part.
func (w *walk) dirOf(path string) (last, error) { return w.run(path, true) }

func (w *walk) run(path string, stop bool) (last, error) {
	for {
		for len(path) > 0 && path[0] == '/' {
			path = path[1:]
		}
		if path == "" {
			return last{}, nil
		}
		name, rest := path, ""
		if i := strings.IndexByte(path, '/'); i >= 0 {
			name, rest = path[:i], path[i:]
		}
		final := onlySlashes(rest)
		in := w.at.Dentry.inode
		if in.dirs == nil {
			return last{}, linux.ENOTDIR
		}
		if err := in.permit(w.c, w.c.Cred, 1); err != nil {
			return last{}, err
		}
		if len(name) > linux.NAME_MAX {
			return last{}, linux.ENAMETOOLONG
		}
		if final && stop {
			return last{name, rest != ""}, nil
		}
		more, err := w.step(name, rest, final)
		if err != nil {
			return last{}, err
		}
		path = more
		if final && rest != "" && onlySlashes(path) && w.at.Dentry.inode.dirs == nil {
			return last{}, linux.ENOTDIR
		}
	}
}

func onlySlashes(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] != '/' {
			return false
		}
	}
	return true
}

// step goes to name and returns what is left of the path: rest, or more if name is a link.
func (w *walk) step(name, rest string, final bool) (string, error) {
	switch name {
	case ".":
		return rest, nil
	case "..":
		return rest, w.up()
	}
	child, err := w.lookup(name)
	if err != nil {
		return "", err
	}
	if child.inode.mode.Load()&linux.S_IFMT == linux.S_IFLNK && (!final || rest != "" || w.flags&Follow != 0) {
		return w.follow(child, rest)
	}
	return rest, w.enter(child)
}

// lookup finds a name in the directory where the walk is.
func (w *walk) lookup(name string) (*Dentry, error) {
	dir := w.at.Dentry
	in := dir.inode
	in.dir.RLock()
	child, err := in.dirs.Lookup(w.c, dir, name)
	in.dir.RUnlock()
	return child, err
}

// enter goes to a child, and what is mounted on it.
func (w *walk) enter(child *Dentry) error {
	w.at.Dentry = child
	if child.mounts.Load() == 0 {
		return nil
	}
	to := w.c.FS.v.cross(w.at)
	if to != w.at && w.flags&NoXDev != 0 {
		return linux.EXDEV
	}
	w.at = to
	return nil
}

// up goes to the parent.
func (w *walk) up() error {
	for {
		if w.at == w.root {
			if w.flags&Beneath != 0 {
				return linux.EXDEV
			}
			return nil
		}
		if w.at.Dentry != w.at.Mount.root {
			break
		}
		at := w.at.Mount.at.Load()
		if at == nil {
			return nil
		}
		if w.flags&NoXDev != 0 {
			return linux.EXDEV
		}
		w.at = *at
	}
	return w.enter(w.at.Dentry.Parent())
}

// follow goes where a symbolic link leads, and returns the path from there on.
func (w *walk) follow(link *Dentry, rest string) (string, error) {
	w.links++
	if w.links > linux.MAXSYMLINKS || w.flags&NoSymlinks != 0 {
		return "", linux.ELOOP
	}
	in := link.inode
	if w.c.FS.v.Protect.Symlinks.Load() != 0 {
		dir := w.at.Dentry.inode
		if dir.Mode()&(linux.S_ISVTX|2) == linux.S_ISVTX|2 && in.UID() != w.c.Cred.FSUID && in.UID() != dir.UID() {
			return "", linux.EACCES
		}
	}
	if j, ok := in.node.(Jumper); ok {
		if w.flags&NoMagic != 0 {
			return "", linux.ELOOP
		}
		to, err := j.Jump(w.c, in)
		if err != nil {
			return "", err
		}
		if w.flags&(Beneath|InRoot) != 0 || w.flags&NoXDev != 0 && to.Mount != w.at.Mount {
			return "", linux.EXDEV
		}
		if to.Dentry != nil {
			w.at = to
			return rest, nil
		}
	}
	l, ok := in.node.(Linker)
	if !ok {
		return "", linux.EINVAL
	}
	target, err := l.Readlink(w.c, in)
	if err != nil {
		return "", err
	}
	if target == "" {
		return "", linux.ENOENT
	}
	if target[0] == '/' {
		if w.flags&Beneath != 0 || w.flags&NoXDev != 0 && w.root.Mount != w.at.Mount {
			return "", linux.EXDEV
		}
		w.at = w.root
	}
	if rest != "" {
		target += rest
	}
	return target, nil
}

// Walk resolves a path as the *at calls do. Errors: linux.ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, EBADF, EXDEV.
func (c *Caller) Walk(dirfd int, path string, flags WalkFlags) (Path, error) {
	var w walk
	if err := w.start(c, dirfd, path, flags); err != nil {
		return Path{}, err
	}
	if err := w.to(path); err != nil {
		return Path{}, err
	}
	if flags&WantDir != 0 && w.at.Dentry.inode.dirs == nil {
		return Path{}, linux.ENOTDIR
	}
	return w.at, nil
}

// atFlags turns AT_* flags into WalkFlags. follow is what the call does without any.
func atFlags(flags int, follow bool) WalkFlags {
	var f WalkFlags
	if follow && flags&linux.AT_SYMLINK_NOFOLLOW == 0 || !follow && flags&linux.AT_SYMLINK_FOLLOW != 0 {
		f = Follow
	}
	if flags&linux.AT_EMPTY_PATH != 0 {
		f |= EmptyPath
	}
	return f
}
