package sys

import (
	"errors"
	"strconv"
	"strings"

	"dinos/dkernel/cred"
	"dinos/dkernel/loader"
	"dinos/dkernel/mm"
	"dinos/dkernel/proc"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// Exec is what running programs takes.
type Exec struct {
	MM     *mm.System
	Loader *loader.System
	// Types are the file systems that mount(2) knows.
	Types map[string]vfs.FSMaker
	// NewMemfd makes a file without a name for memfd_create(2).
	NewMemfd func(c *vfs.Caller, name string, flags uint32) (int, error)
	// Explain, if set, is told why a program could not be run, for people.
	Explain func(t *proc.Thread, err error)
}

// FileSystems are the file systems by name.
func (e *Exec) FileSystems() map[string]vfs.FSMaker { return e.Types }

// Memfd is memfd_create(2).
func (e *Exec) Memfd(c *vfs.Caller, name string, flags uint32) (int, error) {
	return e.NewMemfd(c, name, flags)
}

// execFile is an open program as the loader sees it.
type execFile struct {
	c *vfs.Caller
	d *vfs.Description
	o mm.Object
}

func newExecFile(c *vfs.Caller, d *vfs.Description) (*execFile, error) {
	o, err := d.Object(false, linux.PROT_READ|linux.PROT_EXEC)
	if err != nil {
		d.Unref()
		return nil, linux.EACCES // what cannot be mapped cannot be run
	}
	return &execFile{c, d, o}, nil
}

// ReadAt implements loader.File.
func (f *execFile) ReadAt(p []byte, off int64) (int, error) {
	var io uio.IO
	io.Bytes(p)
	n, err := f.d.Pread(f.c, &io, off)
	return int(n), err
}

// Object implements loader.File.
func (f *execFile) Object() mm.Object { return f.o }

// Attr implements loader.File.
func (f *execFile) Attr() loader.Attr {
	in, m := f.d.Inode(), f.d.Path().Mount
	return loader.Attr{Mode: in.Mode(), UID: in.UID(), GID: in.GID(), NoSUID: m != nil && m.Flags()&linux.MS_NOSUID != 0}
}

// Close implements loader.File.
func (f *execFile) Close() {
	f.o.Release()
	f.d.Unref()
}

type opener struct{ c *vfs.Caller }

// OpenExec implements loader.Opener.
func (o opener) OpenExec(path string) (loader.File, error) {
	d, err := o.c.OpenExec(linux.AT_FDCWD, path, 0)
	if err != nil {
		return nil, err
	}
	return newExecFile(o.c, d)
}

// request opens a program for the loader.
func request(c *vfs.Caller, dir int, path string, flags int) (*loader.Request, error) {
	d, err := c.OpenExec(dir, path, flags)
	if err != nil {
		return nil, err
	}
	f, err := newExecFile(c, d)
	if err != nil {
		return nil, err
	}
	r := &loader.Request{Path: path, File: f, Opener: opener{c}, Cred: c.Cred}
	if path == "" || dir != linux.AT_FDCWD && path[0] != '/' {
		r.Path = "/dev/fd/" + strconv.Itoa(dir)
		if path != "" {
			r.Path += "/" + path
		}
		if on, err := c.Files.Cloexec(dir); err == nil && on {
			r.Inaccessible = true
		}
	}
	return r, nil
}

// execve is execve(2) and execveat(2).
func (t *Task) execve(dir int, path, argv, envp uint64, flags int) (uint64, error) {
	if flags&^(linux.AT_EMPTY_PATH|linux.AT_SYMLINK_NOFOLLOW) != 0 {
		return 0, linux.EINVAL
	}
	p, err := t.str(path)
	if err != nil {
		return 0, err
	}
	p = strings.Clone(p) // the program keeps it
	r, err := request(t.C, dir, p, flags)
	if err != nil {
		return 0, err
	}
	const ask = 0xffffffff
	r.Personality = t.T.Personality(ask)
	r.StackLimit = t.T.Process().Limit(linux.RLIMIT_STACK).Cur
	r.Args, err = loader.CopyArgs(t.Mem, argv, envp, r.StackLimit)
	if err != nil {
		r.File.Close()
		return 0, t.refused(err)
	}
	prog, space, image, err := t.K.Exec.load(r, memoryLimits(t.T.Process().Limit, t.T.Can(cred.IPC_LOCK)))
	if err != nil {
		return 0, t.refused(err)
	}
	// From here on there is no way back but for threads that do not end.
	if err := t.T.BeginExec(); err != nil {
		space.Release()
		prog.Close()
		return 0, err
	}
	t.T.FinishExec(program(prog, space, image))
	prog.Close() // what is mapped has references of its own
	t.Mem = space
	t.T.CPU.Reset(&t.T.Regs)
	image.Start(&t.T.Regs)
	return 0, noResult
}

// refused turns an error of the loader into an errno, after telling people.
func (t *Task) refused(err error) error {
	var e *loader.Error
	if errors.As(err, &e) {
		if t.K.Exec.Explain != nil {
			t.K.Exec.Explain(t.T, err)
		}
		return e.Errno
	}
	return err
}

// load makes a fresh address space with the program that r asks for.
func (e *Exec) load(r *loader.Request, lim mm.Limits) (*loader.Program, *Space, *loader.Image, error) {
	prog, err := loader.Prepare(r, e.Loader)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := e.MM.NewSpace(prog.Layout, lim)
	if err != nil {
		prog.Close()
		return nil, nil, nil, err
	}
	space := &Space{s}
	image, err := prog.Load(space)
	if err != nil {
		space.Release()
		prog.Close()
		return nil, nil, nil, err
	}
	return prog, space, image, nil
}

// Spawn starts a program: the first thread of a new process that no program has made. c says as whom, with which files and where.
// It is not running yet: see proc.System.Start. trace is proc.Spec's. Errors are linux.Errno or *loader.Error.
func (k *Kernel) Spawn(system *proc.System, c *vfs.Caller, path string, args, env []string, trace func(*proc.Thread, []byte)) (*proc.Thread, error) {
	r, err := request(c, linux.AT_FDCWD, path, 0)
	if err != nil {
		return nil, err
	}
	lim := proc.DefaultLimits()
	r.StackLimit = lim[linux.RLIMIT_STACK].Cur
	if r.Args, err = loader.NewArgs(args, env, r.StackLimit); err != nil {
		r.File.Close()
		return nil, err
	}
	prog, space, image, err := k.Exec.load(r, memoryLimits(func(r int) linux.Rlimit { return lim[r] }, c.Cred.Can(cred.IPC_LOCK)))
	if err != nil {
		return nil, err
	}
	t, err := system.Spawn(&proc.Spec{Program: *program(prog, space, image), Limits: &lim, Trace: trace, Thread: func(t *proc.Thread) {
		t.SetFiles(c.Files)
		t.SetFS(c.FS)
		image.Start(&t.Regs)
	}})
	if err != nil {
		space.Release()
		prog.Close()
		return nil, err
	}
	prog.Close() // what is mapped has references of its own
	return t, nil
}

// memoryLimits are what of a process' limits concerns its address space.
func memoryLimits(limit func(resource int) linux.Rlimit, lock bool) mm.Limits {
	return mm.Limits{AS: limit(linux.RLIMIT_AS).Cur, Data: limit(linux.RLIMIT_DATA).Cur, Stack: limit(linux.RLIMIT_STACK).Cur,
		MemLock: limit(linux.RLIMIT_MEMLOCK).Cur, IPCLock: lock}
}

// program is what package proc wants to know of a loaded program.
func program(p *loader.Program, s *Space, i *loader.Image) *proc.Program {
	return &proc.Program{Space: s, Comm: p.Comm, Cred: p.Cred, Secure: p.Secure, Exec: proc.ExecInfo{
		Exe: p.File.(*execFile).d.Path().String(), Path: p.File.(*execFile).d.Path(),
		ArgStart: i.ArgStart, ArgEnd: i.ArgEnd, EnvStart: i.EnvStart, EnvEnd: i.EnvEnd, StackStart: i.StackStart, Auxv: i.Auxv,
		CodeStart: i.CodeStart, CodeEnd: i.CodeEnd, DataStart: i.DataStart, DataEnd: i.DataEnd, BrkStart: i.BrkStart,
	}}
}
