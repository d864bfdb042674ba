// Package launch starts programs for the host tool and connects their standard streams with it (dinos run).
//
// A program with a terminal has a pseudo terminal whose other side is the stream of proto.Run. One without has pipes: its input and
// output are the two directions of that stream, its error output is a stream of its own (proto.Stdio with FD 2), for which the
// start of the program waits.
package launch

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"dinos/dkernel/cred"
	"dinos/dkernel/ipc/pipe"
	"dinos/dkernel/proc"
	"dinos/dkernel/signal"
	"dinos/dkernel/sys"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// Config says what a Launcher works with.
type Config struct {
	Kernel *sys.Kernel
	System *proc.System
	VFS    *vfs.VFS
	Home   uint16       // this dkernel's peer number
	Now    func() int64 // CLOCK_MONOTONIC
	// NewRoot gives a caller, who is root, a root directory with the contents of an archive. Release takes it away.
	NewRoot func(c *vfs.Caller, archive string) (release func(), err error)
}

// Launcher has the programs that were started for others. Its methods may be called by any goroutine.
type Launcher struct {
	ready chan struct{} // closed by Serve, before which the next two are nobody's
	cfg   Config
	root  *vfs.FSContext

	mu   sync.Mutex
	runs map[int32]*run // by pid, until somebody has waited for it or the time is over
}

// run is a program that was started.
type run struct {
	t        *proc.Thread
	release  func()           // takes its root directory away; or nil
	attached chan struct{}    // closed when the error output is connected; nil with a terminal
	errout   *vfs.Description // the end to read of the error output
	master   *vfs.Description // of the terminal, or nil
	stream   uint64
	done     chan struct{} // closed when it has ended
	status   uint32
	trace    tracer
}

// tracer prints system calls.
type tracer struct {
	mu   sync.Mutex
	out  io.Writer // nil if there is nobody to read it
	end  string    // of a line
	line []byte
}

// traced is for proc.Spec.Trace.
func (r *run) traced(t *proc.Thread, line []byte) {
	w := &r.trace
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out == nil {
		return
	}
	w.line = append(append(append(strconv.AppendInt(append(w.line[:0], '['), int64(t.TID()), 10), "] "...), line...), w.end...)
	if _, err := w.out.Write(w.line); err != nil {
		w.out = nil // whoever has read it is gone
	}
}

// How long things are waited for.
const (
	readyTime  = 20 * time.Second // for the kernel to be able to run programs
	attachTime = 10 * time.Second // for the error output
	keepTime   = time.Minute      // for somebody who asks for the status
)

// New makes a Launcher, which can be asked from now on, and answers once Serve was called.
func New() *Launcher { return &Launcher{ready: make(chan struct{}), runs: map[int32]*run{}} }

// Serve says what programs are run with. It is called once. proc.Config.Exited has to call Exited.
func (l *Launcher) Serve(cfg Config) {
	l.cfg, l.root = cfg, cfg.VFS.NewFSContext()
	close(l.ready)
}

// prepared waits until programs can be run.
func (l *Launcher) prepared() error {
	select {
	case <-l.ready:
		return nil
	case <-time.After(readyTime):
		return rpc.Errorf(proto.CodeBusy, "this kernel cannot run programs yet: it has no memory for them from the ckernel")
	}
}

// Handle enters the handlers in m.
func (l *Launcher) Handle(m *rpc.Mux) {
	rpc.HandleStream(m, l.run)
	rpc.HandleStream(m, l.stdio)
	rpc.Handle(m, rpc.Worker, l.wait)
	rpc.Handle(m, rpc.Worker, l.signal)
	rpc.Handle(m, rpc.Worker, l.resize)
}

// caller is who the kernel is when it uses files itself.
func (l *Launcher) caller() *vfs.Caller {
	return &vfs.Caller{Cred: cred.Root(), FS: l.root.Fork(), Files: vfs.NewFDTable(), Sleeper: wait.NewSleeper(l.cfg.Now, nil),
		FileSizeLimit: vfs.Unlimited, OpenLimit: 1024}
}

// Exited is for proc.Config.Exited.
func (l *Launcher) Exited(p *proc.Process, status uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.runs[p.PID()]; r != nil && r.t.Process() == p {
		r.status = status
		close(r.done)
		if r.release != nil {
			go r.release()
		}
		time.AfterFunc(keepTime, func() { l.forget(p.PID(), r) })
	}
}

func (l *Launcher) forget(pid int32, r *run) {
	l.mu.Lock()
	if l.runs[pid] == r {
		delete(l.runs, pid)
	}
	l.mu.Unlock()
}

// wire is the number of a process in messages: unique in the rack, as each dkernel numbers its processes itself.
func (l *Launcher) wire(pid int32) uint64 { return uint64(l.cfg.Home)<<32 | uint64(uint32(pid)) }

// find returns the run with a number from a message.
func (l *Launcher) find(pid uint64) (*run, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.runs[int32(uint32(pid))]; r != nil && l.wire(r.t.PID()) == pid {
		return r, nil
	}
	return nil, rpc.Errorf(proto.CodeNotFound, "no process %d of machine %d was started from outside, or its status was asked for already", uint32(pid), pid>>32)
}

// failed makes an error for the wire.
func failed(path string, err error) error {
	e := linux.EIO
	errors.As(err, &e)
	text := err.Error()
	if _, plain := err.(linux.Errno); plain {
		text = path + ": " + text
	}
	return &rpc.RemoteError{Code: proto.CodeErrno, Errno: uint32(e), Text: text}
}

// run serves proto.Run.
func (l *Launcher) run(s *rpc.Stream, q *proto.Run) error {
	if err := l.prepared(); err != nil {
		return err
	}
	c := l.caller()
	var release func()
	if q.Root != "" {
		var err error
		if release, err = l.cfg.NewRoot(c, q.Root); err != nil {
			return failed(q.Root, err)
		}
	}
	r, err := l.prepare(c, q)
	if err != nil {
		if release != nil {
			release()
		}
		return err
	}
	r.release, r.stream = release, s.ID()
	l.mu.Lock()
	l.runs[r.t.PID()] = r
	l.mu.Unlock()
	return l.started(s, q, r)
}

// prepare makes the process that q asks for.
func (l *Launcher) prepare(c *vfs.Caller, q *proto.Run) (*run, error) {
	if q.UID != 0 || q.GID != 0 {
		c.Cred = &cred.Cred{UID: q.UID, EUID: q.UID, SUID: q.UID, FSUID: q.UID, GID: q.GID, EGID: q.GID, SGID: q.GID, FSGID: q.GID, Bounding: cred.AllCaps}
	}
	if q.Dir != "" {
		if err := c.Chdir(q.Dir); err != nil {
			return nil, failed(q.Dir, err)
		}
	}
	args := q.Args
	if len(args) == 0 {
		args = []string{q.Path}
	}
	r := &run{done: make(chan struct{})}
	var trace func(*proc.Thread, []byte)
	if q.Trace {
		trace = r.traced
	}
	t, err := l.cfg.Kernel.Spawn(l.cfg.System, c, q.Path, args, q.Env, trace)
	if err != nil {
		return nil, failed(q.Path, err)
	}
	r.t = t
	return r, nil
}

// started connects a program's standard streams, starts it and stays with it to its end.
func (l *Launcher) started(s *rpc.Stream, q *proto.Run, r *run) error {
	t, k := r.t, l.caller()
	var in, out *vfs.Description
	var err error
	if q.Terminal {
		r.trace.out, r.trace.end = s, "\r\n"
	}
	if q.Terminal {
		in, err = l.terminal(k, r, q)
		out = in
	} else {
		in, out, err = l.pipes(k, r)
	}
	if err == nil {
		err = s.Accept(&proto.RunReply{PID: l.wire(t.PID()), Home: l.cfg.Home})
	}
	if err == nil && r.attached != nil {
		select {
		case <-r.attached:
		case <-time.After(attachTime):
			err = rpc.Errorf(proto.CodeTimeout, "nobody connected the error output of process %d within %v", t.PID(), attachTime)
		}
	}
	if err != nil {
		// It never ran: it ends by a signal before its first instruction.
		t.ForceKill(linux.SIGKILL)
	}
	l.cfg.System.Start(t)
	if err != nil {
		return err
	}
	return l.pump(s, k, r, in, out)
}

// terminal makes a pseudo terminal the program's and returns the other side.
func (l *Launcher) terminal(k *vfs.Caller, r *run, q *proto.Run) (*vfs.Description, error) {
	fd, err := k.OpenAt(linux.AT_FDCWD, "/dev/ptmx", linux.O_RDWR|linux.O_NOCTTY, 0)
	if err != nil {
		return nil, failed("/dev/ptmx", err)
	}
	m := k.Files.Lookup(fd)
	p, ok := m.File().(Terminal)
	if !ok {
		return nil, failed("/dev/ptmx", linux.ENOTTY)
	}
	p.Unlock()
	p.Resize(linux.Winsize{Row: q.Rows, Col: q.Columns})
	r.master = m
	// The program opens it itself: so it becomes its controlling terminal.
	name := fmt.Sprintf("/dev/pts/%d", p.Number())
	c := &r.t.Caller
	if _, err := c.OpenAt(linux.AT_FDCWD, name, linux.O_RDWR, 0); err != nil {
		return nil, failed(name, err)
	}
	for range 2 {
		if _, err := c.Files.Dup(0, 0, c.OpenLimit, false); err != nil {
			return nil, failed(name, err)
		}
	}
	return m, nil
}

// Terminal is the master of a pseudo terminal, as package tty has it.
type Terminal interface {
	Number() int
	Unlock()
	Resize(linux.Winsize)
}

// pipes makes the program's standard streams and returns their other ends.
func (l *Launcher) pipes(k *vfs.Caller, r *run) (in, out *vfs.Description, err error) {
	c := &r.t.Caller
	var ours [3]*vfs.Description
	for i := range 3 {
		rd, wr, err := pipe.Pipe2(k, 0)
		if err != nil {
			return nil, nil, failed("pipe", err)
		}
		mine, its := rd, wr
		if i == 0 {
			mine, its = wr, rd
		}
		ours[i] = k.Files.Lookup(mine)
		if _, err := c.Files.Install(k.Files.Lookup(its), i, c.OpenLimit, false); err != nil {
			return nil, nil, failed("pipe", err)
		}
		// The references of the kernel's descriptors: an end that nobody else has must be seen as closed.
		_ = k.Files.Close(k, rd)
		_ = k.Files.Close(k, wr)
	}
	r.errout, r.attached = ours[2], make(chan struct{})
	return ours[0], ours[1], nil
}

// pump moves bytes between the stream and the program until the program's output has ended.
func (l *Launcher) pump(s *rpc.Stream, k *vfs.Caller, r *run, in, out *vfs.Description) error {
	go func() {
		err := copyIn(l.caller(), in, s)
		if r.master == nil {
			in.Unref()
		}
		if err != nil {
			// Whoever watched is gone: as when a terminal is closed.
			_ = l.cfg.System.SignalGroup(r.t.PID(), signal.Kernel(linux.SIGHUP))
			_ = l.cfg.System.SignalGroup(r.t.PID(), signal.Kernel(linux.SIGCONT))
		}
	}()
	err := copyOut(k, s, out)
	out.Unref()
	if err == nil {
		err = s.CloseWrite()
	}
	<-r.done
	return err
}

// chunk is how much is moved at a time.
const chunk = 16 << 10

// copyIn moves from the stream to d: nil at the stream's end, and if the program does not read any more.
func copyIn(k *vfs.Caller, d *vfs.Description, s *rpc.Stream) error {
	b := make([]byte, chunk)
	var from uio.IO
	for {
		n, err := s.Read(b)
		for p := b[:n]; len(p) > 0; {
			from.Bytes(p)
			m, err := d.Write(k, &from)
			if err != nil {
				return nil
			}
			p = p[m:]
		}
		if err != nil {
			if errors.Is(err, io.EOF) { // the orderly end of the stream
				return nil
			}
			return err
		}
	}
}

// copyOut moves from d to the stream until d ends: nil.
func copyOut(k *vfs.Caller, s *rpc.Stream, d *vfs.Description) error {
	b := make([]byte, chunk)
	var to uio.IO
	for {
		to.Bytes(b)
		n, err := d.Read(k, &to)
		if err != nil || n == 0 {
			return nil // EIO is how the master of a pseudo terminal ends
		}
		if _, err := s.Write(b[:n]); err != nil {
			return err
		}
	}
}

// stdio serves proto.Stdio: the error output of a program that has just been started.
func (l *Launcher) stdio(s *rpc.Stream, q *proto.Stdio) error {
	r, err := l.find(q.PID)
	if err != nil {
		return err
	}
	l.mu.Lock()
	d := r.errout
	if q.FD == 2 {
		r.errout = nil
	}
	l.mu.Unlock()
	if q.FD != 2 || d == nil {
		return rpc.Errorf(proto.CodeConflict, "descriptor %d of process %d is no stream of its own that is still free: only 2 is, without a terminal", q.FD, q.PID)
	}
	if err := s.Accept(&proto.StdioReply{}); err != nil {
		d.Unref()
		return err
	}
	r.trace.mu.Lock()
	r.trace.out, r.trace.end = s, "\n"
	r.trace.mu.Unlock()
	close(r.attached)
	err = copyOut(l.caller(), s, d)
	d.Unref()
	if err == nil {
		err = s.CloseWrite()
	}
	return err
}

// wait serves proto.WaitProcess: it answers when the program has ended.
func (l *Launcher) wait(q *rpc.Request, w *proto.WaitProcess, a *proto.WaitProcessReply) error {
	r, err := l.find(w.PID)
	if err != nil {
		return err
	}
	select {
	case <-r.done:
		a.Status = int32(r.status)
		l.forget(r.t.PID(), r)
		return nil
	case <-q.Done():
		return q.Err()
	}
}

// signal serves proto.SignalProcess.
func (l *Launcher) signal(_ *rpc.Request, q *proto.SignalProcess, _ *proto.Done) error {
	r, err := l.find(q.PID)
	if err != nil {
		return err
	}
	if !signal.Valid(int(q.Signal)) {
		return rpc.Errorf(proto.CodeMalformed, "signal %d does not exist: 1 to 64", q.Signal)
	}
	// As if typed at a terminal: to the process group.
	if err := l.cfg.System.SignalGroup(r.t.PID(), signal.Kernel(int(q.Signal))); err != nil {
		return failed("", err)
	}
	return nil
}

// resize serves proto.Resize.
func (l *Launcher) resize(_ *rpc.Request, q *proto.Resize, _ *proto.Done) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.runs {
		if r.stream == q.Stream && r.master != nil {
			if p, ok := r.master.File().(Terminal); ok {
				p.Resize(linux.Winsize{Row: q.Rows, Col: q.Columns})
			}
		}
	}
	return nil
}
