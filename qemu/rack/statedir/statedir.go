// Package statedir is where a rack that runs leaves its traces on the host: who started it, which processes it consists of, where its
// memory, its logs and its control socket are. It decides who may use a rack's name, and it cleans up after launchers that died.
//
//	BASE/                    $XDG_RUNTIME_DIR/dinos, else $TMPDIR/dinos-UID; mode 0700
//	BASE/rack-NAME.lock      locked (fcntl, open file description) by the launcher as long as it lives
//	BASE/rack-NAME/          state.json, control, *.log
//	/dev/shm/dinos-UID-…-NAME  the shared memory, mode 0600
//
// A rack whose lock nobody holds is dead, whatever its directory says: its processes are killed (each is known by process id and start time, so
// that a number that the host uses again harms nobody) and its files removed. A rack may ask to be kept for those who want to look at
// it; then only the next rack of that name, or [Remove], does so.
package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Errors; each returned error wraps one of them or one of the operating system's.
var (
	// ErrName: that cannot be the name of a rack.
	ErrName = errors.New("bad rack name")
	// ErrRunning: a rack of this name runs.
	ErrRunning = errors.New("a rack of this name runs already")
	// ErrNone: there is no rack of this name.
	ErrNone = errors.New("no such rack")
)

// Names of files in a rack's directory.
const (
	ControlName = "control"
	stateName   = "state.json"
	rackPrefix  = "rack-"
	lockSuffix  = ".lock"
)

// maxSocket is what fits into a sockaddr_un with its NUL; unix(7).
const maxSocket = 107

// shmDir is where files are memory.
const shmDir = "/dev/shm"

// busyWait is how long Create waits for another process that cleans up a dead rack of the same name.
const busyWait = 10 * time.Second

var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// CheckName returns ErrName if name cannot be a rack's.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("%w %q: want 1 to 31 of a-z, 0-9 and -, not starting with -", ErrName, name)
	}
	return nil
}

// Base is the directory of all of the user's racks. It is made if need be, and refused if it is not the user's own.
func Base() (string, error) {
	base := filepath.Join(os.TempDir(), fmt.Sprintf("dinos-%d", os.Getuid()))
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		base = filepath.Join(run, "dinos")
	}
	return base, makeBase(base)
}

func makeBase(base string) error {
	if err := os.MkdirAll(base, 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(base, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: base, Err: err}
	}
	// /tmp is everyone's: a directory that someone else made is not ours to use.
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o077 != 0 || int(st.Uid) != os.Getuid() {
		return fmt.Errorf("%s is not a directory of mode 0700 that belongs to you: remove it", base)
	}
	return nil
}

// State is what state.json says. The launcher writes it, others read it.
type State struct {
	Name       string
	Generation uint64 // of the rack, in the superblock
	Boot       string // the host's boot, so that process ids of an earlier one mean nothing
	Launcher   Process
	Kernels    []Kernel
	Memory     string // path of the shared memory
	Keep       bool   // leave the directory and the memory when the launcher is gone
	Started    time.Time
	Options    json.RawMessage // what the rack was asked to be; for people
}

// Kernel is a kernel's process.
type Kernel struct {
	Peer int
	Name string
	Process
}

// Dir is the directory of a rack of ours. Its methods are not safe for concurrent use.
type Dir struct {
	Name, Path string
	base       string
	lock       *os.File
}

// Join returns the path of a file in the directory.
func (d *Dir) Join(name string) string { return filepath.Join(d.Path, name) }

// Path is the directory of a rack in base, whether it exists or not.
func Path(base, name string) string { return filepath.Join(base, rackPrefix+name) }

// MemoryPath is where the shared memory of a rack in base is.
func MemoryPath(base, name string) string {
	dir := shmDir
	if st, err := os.Stat(shmDir); err != nil || !st.IsDir() {
		dir = base
	}
	// Racks of the same name in two bases are two racks.
	h := fnv.New32a()
	h.Write([]byte(base))
	return filepath.Join(dir, fmt.Sprintf("dinos-%d-%08x-%s", os.Getuid(), h.Sum32(), name))
}

// Create takes a name, removes what a dead rack of that name and all other dead racks left, and makes an empty directory. Errors: ErrName,
// ErrRunning.
func Create(base, name string) (*Dir, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := makeBase(base); err != nil {
		return nil, err
	}
	path := Path(base, name)
	if n := len(filepath.Join(path, ControlName)); n > maxSocket {
		return nil, fmt.Errorf("%w %q: the path of its control socket has %d bytes, want at most %d: choose a shorter name or another XDG_RUNTIME_DIR",
			ErrName, name, n, maxSocket)
	}
	lock, err := take(base, name)
	if err != nil {
		return nil, err
	}
	d := &Dir{name, path, base, lock}
	if err := clean(base, name); err != nil {
		d.unlock()
		return nil, fmt.Errorf("clean up the last rack %q: %w", name, err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		d.unlock()
		return nil, err
	}
	// What other racks left is theirs to complain about.
	Sweep(base)
	return d, nil
}

// take locks a name, waiting for somebody who only cleans up.
func take(base, name string) (*os.File, error) {
	for end := time.Now().Add(busyWait); ; time.Sleep(5 * time.Millisecond) {
		lock, err := tryLock(base, name)
		if err != errLocked {
			return lock, err
		}
		if st, err := Load(base, name); err == nil && st.Launcher.alive(st.Boot) {
			return nil, fmt.Errorf("%w: %q, process %d; take another --name, or end it with 'dinos down --name %s'", ErrRunning, name, st.Launcher.PID, name)
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%w: %q is being started or cleaned up by another process", ErrRunning, name)
		}
	}
}

// Save replaces state.json in one step.
func (d *Dir) Save(s *State) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := d.Join(stateName + ".new")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, d.Join(stateName))
}

// Close gives the name back. With keep, directory and memory stay for those who want to look; else they are removed.
func (d *Dir) Close(keep bool) error {
	defer d.unlock()
	if keep {
		os.Remove(d.Join(ControlName))
		return nil
	}
	return clean(d.base, d.Name)
}

// unlock gives the lock up. Its file goes first: whoever finds it gone makes a new one.
func (d *Dir) unlock() {
	if _, err := os.Lstat(d.Path); errors.Is(err, fs.ErrNotExist) {
		os.Remove(lockPath(d.base, d.Name))
	}
	d.lock.Close()
}

// Load reads the state of a rack, running or dead. Errors: ErrNone, and that state.json is damaged.
func Load(base, name string) (*State, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(Path(base, name), stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q", ErrNone, name)
	}
	if err != nil {
		return nil, err
	}
	s := &State{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(Path(base, name), stateName), err)
	}
	if s.Name != name {
		return nil, fmt.Errorf("%s: it is of rack %q, want %q", filepath.Join(Path(base, name), stateName), s.Name, name)
	}
	return s, nil
}

// Running reports whether a launcher holds the name.
func Running(base, name string) bool { return locked(base, name) }

// Entry is a rack in a list.
type Entry struct {
	Name    string
	Running bool
}

// List returns all racks of a base, running and dead, by name.
func List(base string) ([]Entry, error) {
	files, err := os.ReadDir(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Entry
	for _, f := range files {
		name, ok := strings.CutPrefix(f.Name(), rackPrefix)
		if !ok || CheckName(strings.TrimSuffix(name, lockSuffix)) != nil {
			continue
		}
		name = strings.TrimSuffix(name, lockSuffix)
		if !slices.ContainsFunc(list, func(e Entry) bool { return e.Name == name }) {
			list = append(list, Entry{name, Running(base, name)})
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Sweep removes what dead racks left, but for those that are kept, and returns their names.
func Sweep(base string) (removed []string, err error) {
	list, err := List(base)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range list {
		if e.Running {
			continue
		}
		if s, err := Load(base, e.Name); err == nil && s.Keep {
			errs = append(errs, killAll(s))
			continue
		}
		if err := Remove(base, e.Name); err == nil {
			removed = append(removed, e.Name)
		} else if !errors.Is(err, ErrRunning) && !errors.Is(err, ErrNone) {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// Remove kills what is left of a dead rack and removes its files. Errors: ErrName, ErrNone, ErrRunning.
func Remove(base, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	_, dirErr := os.Lstat(Path(base, name))
	_, lockErr := os.Lstat(lockPath(base, name))
	if dirErr != nil && lockErr != nil {
		return fmt.Errorf("%w: %q", ErrNone, name)
	}
	lock, err := tryLock(base, name)
	if err == errLocked {
		return fmt.Errorf("%w: %q", ErrRunning, name)
	}
	if err != nil {
		return err
	}
	d := &Dir{name, Path(base, name), base, lock}
	defer d.unlock()
	return clean(base, name)
}

// clean kills the processes of a rack and removes its directory and memory. Its lock is held.
func clean(base, name string) error {
	// A damaged file names no process that could be trusted to be ours; that QEMU dies with its launcher is the other guard.
	if s, err := Load(base, name); err == nil {
		if err := killAll(s); err != nil {
			return err
		}
	}
	if err := os.Remove(MemoryPath(base, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(Path(base, name))
}

func killAll(s *State) error {
	var errs []error
	for _, k := range s.Kernels {
		if err := k.Process.kill(s.Boot); err != nil {
			errs = append(errs, fmt.Errorf("%s of rack %s: %w", k.Name, s.Name, err))
		}
	}
	return errors.Join(errs...)
}
