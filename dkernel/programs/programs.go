// Package programs puts together what runs programs on a data kernel: memory, files, processes, system calls.
package programs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"sync/atomic"
	"time"

	"dinos/dkernel/cred"
	"dinos/dkernel/frame"
	"dinos/dkernel/ipc/event"
	"dinos/dkernel/ipc/pipe"
	"dinos/dkernel/ipc/socket"
	"dinos/dkernel/ipc/tty"
	"dinos/dkernel/ipc/unix"
	"dinos/dkernel/loader"
	"dinos/dkernel/mm"
	"dinos/dkernel/proc"
	"dinos/dkernel/run"
	"dinos/dkernel/signal"
	"dinos/dkernel/sys"
	"dinos/dkernel/uio"
	"dinos/dkernel/vdso"
	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/cpio"
	"dinos/dkernel/vfs/devfs"
	"dinos/dkernel/vfs/hostfs"
	"dinos/dkernel/vfs/procfs"
	"dinos/dkernel/vfs/tmpfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
	"dinos/kernel/machine"
	"dinos/kernel/ureg"
)

// Config says what programs get.
type Config struct {
	Machine *machine.Machine
	// Memory, Base and Source are where frames come from: the shared memory of the rack, or the machine's own.
	Memory []byte
	Base   uint64
	Source frame.Source
	// Root is a cpio archive with the first contents of the root directory, or one program, which then gets the name RootName; nil
	// leaves it empty.
	Root     []byte
	RootName string
	// Hostname is what uname(2) says at first.
	Hostname string
	// Trace prints the system calls of Init's program, and of those that it starts, on the console.
	Trace bool
	// Exited is told of processes that ended. It may be nil.
	Exited func(p *proc.Process, status uint32)
}

// Programs runs programs. Its fields do not change.
type Programs struct {
	Frames *frame.Pool
	MM     *mm.System
	VFS    *vfs.VFS
	TTY    *tty.System
	Procs  *proc.System
	Kernel *sys.Kernel

	root         *tmpfs.FS
	kernelMounts []kernelMount                     // what every root directory has
	roots        atomic.Int64                      // how many NewRoot has made
	trace        func(t *proc.Thread, line []byte) // of Init
}

// kernelMount is a file system that tells about the kernel.
type kernelMount struct {
	fs         *vfs.FS
	path, kind string
	flags      uint32
}

// Release is what uname(2) says: the version of Linux whose interface is served. Programs compare it.
const Release = "6.12.0-dinos"

// New puts everything together, in the order in which things need each other.
func New(c Config) (*Programs, error) {
	if err := machine.CanRunUser(); err != nil {
		return nil, err
	}
	p := &Programs{}
	var err error
	if p.Frames, err = frame.New(frame.Config{Memory: c.Memory, Base: c.Base, Source: c.Source}); err != nil {
		return nil, err
	}
	if p.MM, err = mm.NewSystem(mm.Config{Frames: p.Frames, Hardware: run.Hardware{}, Random: machine.Random64, AnonAround: 8}); err != nil {
		return nil, fmt.Errorf("memory for programs: %w", err)
	}
	ld, err := p.newLoader()
	if err != nil {
		return nil, err
	}
	clock := proc.NewClock(func() int64 { return int64(machine.Now()) }, func() int64 { return time.Now().UnixNano() })
	runner := &run.Runner{}
	m := &procMachine{p: p, m: c.Machine, clock: clock, total: int64(len(c.Memory)), cpus: processors(c.Machine.MADT.Enabled())}
	p.Kernel = &sys.Kernel{
		Table:   sys.NewTable(),
		Active:  new(atomic.Int32),
		CPUs:    c.Machine.MADT.Enabled(),
		Log:     machine.Print,
		Random:  machine.Random,
		CPU:     func() (cpu, node uint32) { return machine.CPUHint(), 0 },
		Memory:  func() (total, free uint64) { x := m.Memory(); return uint64(x.Total), uint64(x.Free) },
		Load:    m.load.now,
		Uptime:  clock.Monotonic,
		Sockets: socket.New(),
		Clocks:  &event.Clocks{Monotonic: clock.Monotonic, Realtime: clock.Realtime},
		Exec: sys.Exec{MM: p.MM, Loader: ld, Types: map[string]vfs.FSMaker{"tmpfs": tmpfs.Maker(int64(len(c.Memory)))},
			Explain: func(t *proc.Thread, err error) { machine.Print(fmt.Sprintf("dinos: %v", err)) }},
	}
	if c.Trace {
		p.trace = func(t *proc.Thread, line []byte) { machine.Print(fmt.Sprintf("[%d] %s", t.TID(), line)) }
	}
	p.Kernel.Sockets.Register(linux.AF_UNIX, unix.New(clock.Monotonic))
	runner.Kernel = p.Kernel
	runner.OutOfMemory = func(t *proc.Thread) {
		machine.Print(fmt.Sprintf("dinos: out of memory: killing process %d (%s)", t.PID(), t.Name()))
	}
	p.Kernel.Threads = func() int { return p.Procs.Stats().Threads }
	var cpus proc.CPUSet
	for i := range c.Machine.MADT.Enabled() {
		cpus.Add(i)
	}
	p.Procs, err = proc.New(proc.Config{Clock: clock, Starter: runner, Kick: runner.Kick, Barrier: runner.Barrier, Exited: c.Exited,
		CPU: p.Kernel.CPU, CoarseResolution: vdso.CoarseResolution, CPUs: cpus, Release: Release, Version: "#1 SMP", Hostname: c.Hostname})
	if err != nil {
		return nil, err
	}
	if err := p.files(c, clock, m); err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	p.Kernel.Exec.NewMemfd = p.root.MemfdCreate
	return p, nil
}

// newLoader makes what every program gets from the kernel: the vDSO and its page of data.
func (p *Programs) newLoader() (*loader.System, error) {
	l := &loader.System{HWCap: machine.HWCap(), HWCap2: 1 << 1, MinSigStack: signal.MinSize(machine.NewUserThread(&ureg.Frame{})), Random: machine.Random64}
	source := vdso.CPUFromSyscall
	if machine.HasRDTSCP() {
		source = vdso.CPUFromRDTSCP
	}
	image, err := vdso.New(source)
	if err != nil {
		return nil, err
	}
	data, err := p.MM.NewAnon(1, true)
	if err != nil {
		return nil, err
	}
	data.SetInfo(mm.Info{Name: "[vvar]"})
	f, err := data.Page(0, true)
	if err != nil {
		return nil, err
	}
	w := vdso.NewWriter(p.Frames.Bytes(f))
	base, mult, wall := machine.ClockScale()
	w.Set(&vdso.Clock{Base: base, Mult: mult, Wall: wall})
	code, err := p.MM.NewAnon(uint64(len(image.Bytes))/frame.Size, true)
	if err != nil {
		return nil, err
	}
	code.SetInfo(mm.Info{Name: "[vdso]"})
	for i := 0; i < len(image.Bytes); i += frame.Size {
		f, err := code.Page(uint64(i/frame.Size), true)
		if err != nil {
			return nil, err
		}
		copy(p.Frames.Bytes(f), image.Bytes[i:])
	}
	l.VVar, l.VDSO, l.VDSOSize = data, code, uint64(len(image.Bytes))
	return l, nil
}

// files makes the tree of files.
func (p *Programs) files(c Config, clock proc.Clock, m *procMachine) error {
	p.VFS = vfs.New(vfs.Config{Now: clock.Realtime, Frames: p.Frames})
	p.root = tmpfs.New(p.VFS, tmpfs.Config{Mode: 0o755, Type: "rootfs"})
	if err := p.VFS.MountRoot(p.root.FS, "rootfs", 0); err != nil {
		return err
	}
	dev := devfs.New(p.VFS, devfs.Config{Random: machine.Random, Log: machine.Print})
	p.TTY = tty.New(tty.Config{Now: clock.Monotonic, Jobs: p.Procs.Jobs(), Added: dev.Pts.Add, Removed: dev.Pts.Remove})
	p.TTY.Register(p.VFS)
	pipe.Register(p.VFS)
	k := p.Caller()
	if err := p.unpack(k, c.Root, c.RootName); err != nil {
		return err
	}
	for _, d := range [...]struct {
		path string
		mode uint32
	}{{"/tmp", 0o1777}, {"/root", 0o700}, {"/run", 0o755}} {
		if err := k.MkdirAt(linux.AT_FDCWD, d.path, d.mode); err != nil && err != linux.EEXIST {
			return fmt.Errorf("%s: %w", d.path, err)
		}
	}
	if err := dev.Mount(k, "/dev"); err != nil {
		return err
	}
	n := c.Machine.MADT.Enabled()
	cpus := make([]int, n)
	for i := range cpus {
		cpus[i] = i
	}
	const quiet = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
	p.kernelMounts = []kernelMount{
		{p.newProc(m), "/proc", "proc", quiet},
		{procfs.NewSys(p.VFS, func() []int { return cpus }, n), "/sys", "sysfs", quiet},
	}
	for _, x := range p.kernelMounts {
		if err := p.mount(k, x.fs, x.path, x.kind, x.flags); err != nil {
			return err
		}
	}
	p.kernelMounts = append(p.kernelMounts, kernelMount{dev.FS.FS, "/dev", "devtmpfs", linux.MS_NOSUID | linux.MS_NOEXEC},
		kernelMount{dev.Pts.FS.FS, "/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC},
		kernelMount{dev.Shm.FS, "/dev/shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV})
	return nil
}

// fresh is how long names and attributes of the host's files are believed, in ns.
const fresh = 50e6

// MountHost mounts a directory of the host at /host.
func (p *Programs) MountHost(calls hostfs.Calls) error {
	f, err := hostfs.New(p.VFS, hostfs.Config{Calls: calls, Fresh: fresh})
	if err != nil {
		return err
	}
	return p.mount(p.Caller(), f.FS, "/host", "host", linux.MS_NOSUID|linux.MS_NODEV)
}

// mount mounts a file system at a directory that is made for it.
func (p *Programs) mount(k *vfs.Caller, f *vfs.FS, dir, kind string, flags uint32) error {
	if err := k.MkdirAt(linux.AT_FDCWD, dir, 0o555); err != nil && err != linux.EEXIST {
		return fmt.Errorf("%s: %w", dir, err)
	}
	at, err := k.Walk(linux.AT_FDCWD, dir, vfs.Follow)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if err := p.VFS.Mount(f, f.Root(), at, kind, flags); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, dir, err)
	}
	return nil
}

// unpack fills the root directory. What is no archive but a program becomes the file name.
func (p *Programs) unpack(k *vfs.Caller, root []byte, name string) error {
	if len(root) == 0 {
		return nil
	}
	if !bytes.HasPrefix(root, []byte("\x7fELF")) {
		_, err := cpio.Unpack(p.VFS, p.root, root)
		return err
	}
	if dir := path.Dir(name); dir != "/" {
		if err := k.MkdirAt(linux.AT_FDCWD, dir, 0o755); err != nil && err != linux.EEXIST {
			return err
		}
	}
	fd, err := k.OpenAt(linux.AT_FDCWD, name, linux.O_CREAT|linux.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer k.Files.Close(k, fd)
	var io uio.IO
	io.Bytes(root)
	n, err := k.Write(fd, &io)
	if err == nil && n < int64(len(root)) {
		err = linux.ENOSPC
	}
	return err
}

// Caller is who the kernel is when it uses files itself.
func (p *Programs) Caller() *vfs.Caller {
	return &vfs.Caller{Cred: cred.Root(), FS: p.VFS.NewFSContext(), Files: vfs.NewFDTable(),
		Sleeper:       wait.NewSleeper(func() int64 { return int64(machine.Now()) }, nil),
		FileSizeLimit: vfs.Unlimited, OpenLimit: 1024}
}

// Init runs a program on the machine's console and returns its status in wait(2)'s form when it has ended: known is told which process it is before
// it runs, exited brings the status, by way of Config.Exited.
func (p *Programs) Init(m *machine.Machine, file string, args, env []string, known func(*proc.Process), exited <-chan uint32) (uint32, error) {
	c := p.Caller()
	t, err := p.Kernel.Spawn(p.Procs, c, file, args, env, p.trace)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	tc := &t.Caller
	if _, err := tc.OpenAt(linux.AT_FDCWD, "/dev/console", linux.O_RDWR, 0); err != nil {
		return 0, fmt.Errorf("/dev/console: %w", err)
	}
	for range 2 {
		if _, err := tc.Files.Dup(0, 0, tc.OpenLimit, false); err != nil {
			return 0, fmt.Errorf("/dev/console: %w", err)
		}
	}
	in, err := m.Console()
	if err != nil {
		return 0, err
	}
	console := p.TTY.Console()
	go feed(console, in)
	done := make(chan struct{})
	go drain(console, done)
	known(t.Process())
	p.Procs.Start(t)
	status := <-exited
	close(done)
	for b := make([]byte, 4096); ; { // what is left
		n := console.Output(b)
		if n == 0 {
			break
		}
		os.Stdout.Write(b[:n])
	}
	return status, nil
}

// feed gives the terminal what is typed.
func feed(c *tty.Console, in io.Reader) {
	b := make([]byte, 256)
	for {
		n, err := in.Read(b)
		for p := b[:n]; len(p) > 0; {
			m := c.Input(p)
			p = p[m:]
			if len(p) > 0 {
				time.Sleep(10 * time.Millisecond) // nobody reads: typing ahead has its limits
			}
		}
		if err != nil {
			return
		}
	}
}

// drain prints what programs write.
func drain(c *tty.Console, done <-chan struct{}) {
	s := wait.NewSleeper(func() int64 { return int64(machine.Now()) }, func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	b := make([]byte, 4096)
	for {
		err := s.Until(c.Queue(), wait.Readable, wait.Forever, func() error {
			if n := c.Output(b); n > 0 {
				os.Stdout.Write(b[:n])
				return nil
			}
			return linux.EAGAIN
		})
		if err != nil {
			return
		}
	}
}
