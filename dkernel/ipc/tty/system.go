package tty

import (
	"sync"

	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Device numbers (Documentation/admin-guide/devices.txt).
const (
	majorTTY  = 5 // tty 0, console 1, ptmx 2
	majorPTS  = 136
	minorTTY  = 0
	minorCon  = 1
	minorPTMX = 2
	// MaxPTY is how many pseudo terminals there can be.
	MaxPTY = 4096
)

// Config is what a System works with.
type Config struct {
	// Jobs is all processes; nil for terminals without job control.
	Jobs Jobs
	// Now is the clock of wait.Sleeper's deadlines, in ns.
	Now func() int64
	// Added and Removed are told when the names of pseudo terminals come and go (/dev/pts/num), with the credentials of who
	// opened the master. They may be nil.
	Added   func(c *vfs.Caller, num int, dev uint64)
	Removed func(num int)
}

// System is all terminals of a dkernel.
type System struct {
	jobs    Jobs
	now     func() int64
	added   func(c *vfs.Caller, num int, dev uint64)
	removed func(num int)
	console *TTY

	mu   sync.Mutex // guards ptys; before TTY.mu
	ptys []*TTY     // by number
}

// New makes the terminals: the console, and no pseudo terminals.
func New(c Config) *System {
	s := &System{jobs: c.Jobs, now: c.Now, added: c.Added, removed: c.Removed}
	if s.jobs == nil {
		s.jobs = noJobs{}
	}
	s.console = s.newTTY(kindConsole, 0, vfs.MkDev(majorTTY, minorCon))
	return s
}

// noJobs is for terminals without processes.
type noJobs struct{}

func (noJobs) SignalGroup(int32, int)                {}
func (noJobs) LoseTerminal(int32, *TTY, bool, int32) {}
func (noJobs) GroupSession(int32) (int32, bool)      { return 0, false }

// Register has v open the devices: /dev/tty (5:0), /dev/console (5:1), /dev/ptmx (5:2), /dev/pts/N (136:N).
func (s *System) Register(v *vfs.VFS) {
	v.RegisterChar(majorTTY, minorTTY, s.openTTY)
	v.RegisterChar(majorTTY, minorCon, s.openConsole)
	v.RegisterChar(majorTTY, minorPTMX, s.openMaster)
	v.RegisterMajor(majorPTS, s.openSlave)
}

// openTTY opens the controlling terminal of the caller.
func (s *System) openTTY(c *vfs.Caller, d *vfs.Description, _ *vfs.Inode, _ uint32) (vfs.File, error) {
	k := task(c)
	if k == nil || k.Terminal() == nil {
		return nil, linux.ENXIO
	}
	t := k.Terminal()
	d.SetStream()
	return t, t.Open(c, d, true)
}

// openConsole opens the console. It does become the controlling terminal, other than on Linux, where a console is a name for
// a terminal that would.
func (s *System) openConsole(c *vfs.Caller, d *vfs.Description, _ *vfs.Inode, flags uint32) (vfs.File, error) {
	d.SetStream()
	return s.console, s.console.Open(c, d, flags&linux.O_NOCTTY != 0)
}

func (s *System) openSlave(c *vfs.Caller, d *vfs.Description, in *vfs.Inode, flags uint32) (vfs.File, error) {
	num := int(vfs.Minor(in.Rdev()))
	s.mu.Lock()
	var t *TTY
	if num < len(s.ptys) {
		t = s.ptys[num]
	}
	s.mu.Unlock()
	if t == nil {
		return nil, linux.EIO
	}
	d.SetStream()
	return t, t.Open(c, d, flags&linux.O_NOCTTY != 0)
}

// Console is the terminal whose other side is the kernel.
func (s *System) Console() *Console { return (*Console)(s.console) }

// Console is the kernel's side of a terminal. Its methods may be called by several goroutines.
type Console TTY

func (c *Console) tty() *TTY { return (*TTY)(c) }

// TTY is the programs' side.
func (c *Console) TTY() *TTY { return c.tty() }

// Input feeds what is typed and returns how many bytes were taken; when that is less than all, programs do not read, and it is
// to be tried again after wait.Writable at Queue.
func (c *Console) Input(p []byte) int { return c.tty().input(p) }

// Output takes what programs have written; 0 is nothing, wait for wait.Readable at Queue.
func (c *Console) Output(p []byte) int { return c.tty().output(p) }

// Queue is where new output (wait.Readable) and room for input (wait.Writable) are announced.
func (c *Console) Queue() *wait.Queue { return &c.other }

// Resize is what happens when the window gets another size.
func (c *Console) Resize(w linux.Winsize) { c.tty().Resize(w) }

// Hangup is what happens when nobody is at the other side any more: the session's leader gets SIGHUP, whoever has the terminal
// open reads the end of the file. It can be opened anew.
func (c *Console) Hangup() { c.tty().hangUp(false) }
