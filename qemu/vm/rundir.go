package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// RunDir is a directory for the sockets and files of one run. It is removed by Close or, if its owner dies before,
// by the next NewRunDir of the same user.
type RunDir struct {
	Path string
	lock *os.File // flocked as long as the owner lives; QEMU does not inherit it
}

const (
	lockName  = "lock"
	runPrefix = "run-"
	newPrefix = "new-" // not locked yet
	newGrace  = time.Minute
)

// NewRunDir removes what dead owners left behind and makes a directory. Its path is short: sockets in it must stay below 108
// bytes.
func NewRunDir() (*RunDir, error) {
	return newRunDir(filepath.Join(os.TempDir(), fmt.Sprintf("dinos-%d", os.Getuid())))
}

func newRunDir(base string) (*RunDir, error) {
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, err
	}
	// /tmp is everyone's: a directory that someone else made is not ours to use.
	if st, err := os.Lstat(base); err != nil || !st.IsDir() || st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s is not a directory of mode 0700: remove it", base)
	}
	if err := sweep(base); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(base, newPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := tryLock(filepath.Join(path, lockName), os.O_CREATE)
	if err != nil {
		os.RemoveAll(path)
		return nil, err
	}
	// Only now may others see it as a run: whoever finds it unlocked removes it.
	final := filepath.Join(base, runPrefix+strings.TrimPrefix(filepath.Base(path), newPrefix))
	if err := os.Rename(path, final); err != nil {
		lock.Close()
		os.RemoveAll(path)
		return nil, err
	}
	return &RunDir{final, lock}, nil
}

// Join returns the path of a file in d.
func (d *RunDir) Join(name string) string { return filepath.Join(d.Path, name) }

// Close removes the directory and all in it. It may be called more than once.
func (d *RunDir) Close() error {
	err := os.RemoveAll(d.Path)
	d.lock.Close()
	return err
}

// tryLock opens and locks path; the error is unix.EWOULDBLOCK if another has the lock.
func tryLock(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes the directories of dead owners.
func sweep(base string) error {
	list, err := os.ReadDir(base)
	if err != nil {
		return err
	}
	for _, e := range list {
		path := filepath.Join(base, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), newPrefix):
			if st, err := e.Info(); err != nil || time.Since(st.ModTime()) < newGrace {
				continue
			}
		case strings.HasPrefix(e.Name(), runPrefix):
			lock, err := tryLock(filepath.Join(path, lockName), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				continue // alive, or not ours to judge
			}
			if lock != nil {
				defer lock.Close()
			}
		default:
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}
