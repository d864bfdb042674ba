package statedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errLocked is that somebody else has the lock.
var errLocked = errors.New("locked")

func lockPath(base, name string) string { return filepath.Join(base, rackPrefix+name+lockSuffix) }

// whole is a lock of the whole file. Locks of open file descriptions (fcntl(2)) can be looked at without taking them, which those of flock(2)
// cannot: whoever only asks must not keep a launcher from its name.
func whole() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK, Whence: 0} }

// tryLock takes the lock of a name. The error is errLocked if another has it.
func tryLock(base, name string) (*os.File, error) {
	path := lockPath(base, name)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, whole()); err != nil {
			f.Close()
			if err == unix.EAGAIN || err == unix.EACCES {
				return nil, errLocked
			}
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		// Its last owner may have removed the file between the two steps; then the lock is of no file.
		a, err := f.Stat()
		if err == nil {
			var b os.FileInfo
			if b, err = os.Lstat(path); err == nil && os.SameFile(a, b) {
				return f, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// locked reports whether somebody has the lock, without taking it.
func locked(base, name string) bool {
	f, err := os.OpenFile(lockPath(base, name), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	l := whole()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, l) == nil && l.Type != unix.F_UNLCK
}
