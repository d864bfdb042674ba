package rack

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"syscall"
	"time"

	"dinos/qemu/rack/control"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// Program is a program to run on a rack.
type Program struct {
	Path     string   `json:"path"` // in the rack's file system
	Args     []string `json:"args"` // with the name, as execve has it; none is the path
	Env      []string `json:"env,omitempty"`
	Dir      string   `json:"dir,omitempty"` // "" is the root
	Kernel   string   `json:"kernel,omitempty"`
	Cores    uint16   `json:"cores,omitempty"`  // to begin with
	Slices   uint32   `json:"slices,omitempty"` // to begin with
	UID      uint32   `json:"uid,omitempty"`
	GID      uint32   `json:"gid,omitempty"`
	Terminal bool     `json:"terminal,omitempty"` // one stream both ways, through a pseudo terminal
	Rows     uint16   `json:"rows,omitempty"`
	Columns  uint16   `json:"columns,omitempty"`
	Root     string   `json:"root,omitempty"`  // archive (cpio) in the rack's file system, whose contents are the program's root directory
	Trace    bool     `json:"trace,omitempty"` // its system calls are written to its error output
}

// Ended is how a program ended.
type Ended struct {
	PID    uint64             `json:"pid"`
	Home   int                `json:"home"` // the dkernel that ran it
	Status syscall.WaitStatus `json:"status"`
	Usage  proto.Usage        `json:"usage"`
}

// Events of a command run: from the client, and "started" with an Ended whose Status means nothing to it.
const (
	eventResize  = "resize"  // control.Resize
	eventSignal  = "signal"  // its number
	eventStarted = "started" // Ended
)

// Times of a run.
const (
	startTimeout = 30 * time.Second
	waitTimeout  = 365 * 24 * time.Hour // a program may run as long as it likes
)

// want finds out where a program is to run.
func (r *Rack) want(p *Program) (proto.Want, error) {
	w := proto.Want{Machine: -1}
	if p.Kernel == "" {
		return w, nil
	}
	k, err := r.kernel(p.Kernel)
	if err != nil {
		return w, err
	}
	if k.peer == layout.Ckernel {
		return w, control.Errorf(control.CodeUsage, "the ckernel runs no programs")
	}
	w.Machine = int32(k.peer)
	return w, nil
}

// serveRun runs a program and moves its standard streams. When the client goes away, the program is hung up on, as by a terminal that is closed.
func (r *Rack) serveRun(ctx context.Context, s *control.Session) (any, error) {
	var p Program
	if err := s.Args(&p); err != nil {
		return nil, err
	}
	want, err := r.want(&p)
	if err != nil {
		return nil, coded(err)
	}
	c, err := r.conn(layout.Ckernel)
	if err != nil {
		return nil, coded(err)
	}
	var started proto.RunReply
	out, err := c.Open(ctx, &proto.Run{Want: want, UID: p.UID, GID: p.GID, Cores: p.Cores, Slices: p.Slices, Terminal: p.Terminal, Rows: p.Rows,
		Columns: p.Columns, Path: p.Path, Dir: p.Dir, Args: p.Args, Env: p.Env, Root: p.Root, Trace: p.Trace}, &started, startTimeout)
	if err != nil {
		return nil, coded(err)
	}
	defer out.Close()
	hangUp := context.AfterFunc(ctx, func() { out.Close() })
	defer hangUp()
	var output sync.WaitGroup
	if !p.Terminal { // its start waits for this one
		diag, err := c.Open(ctx, &proto.Stdio{PID: started.PID, FD: 2}, &proto.StdioReply{}, startTimeout)
		if err != nil {
			return nil, coded(err)
		}
		defer diag.Close()
		output.Go(func() { io.Copy(s.Channel(control.Stderr), diag) })
	}
	e := Ended{PID: started.PID, Home: int(started.Home)}
	if err := s.Event(eventStarted, e); err != nil {
		return nil, err
	}
	go func() {
		if _, err := io.Copy(out, s.Channel(control.Stdin)); err == nil {
			out.CloseWrite()
		}
	}()
	go r.programEvents(ctx, s, c, out.ID(), started.PID)
	_, copyErr := io.Copy(s.Channel(control.Stdout), out)
	output.Wait()
	var w proto.WaitProcessReply
	if err := c.Call(ctx, &proto.WaitProcess{PID: started.PID}, &w, waitTimeout); err != nil {
		if copyErr != nil { // that is why
			err = copyErr
		}
		return nil, coded(err)
	}
	e.Status, e.Usage = syscall.WaitStatus(w.Status), w.Usage
	return e, nil
}

// programEvents passes on what the client tells.
func (r *Rack) programEvents(ctx context.Context, s *control.Session, c *rpc.Conn, stream, pid uint64) {
	for {
		e, err := s.NextEvent(ctx)
		if err != nil {
			return
		}
		switch e.Name {
		case eventResize:
			var size control.Resize
			if json.Unmarshal(e.Data, &size) == nil {
				_ = c.Event(&proto.Resize{Stream: stream, Rows: size.Rows, Columns: size.Columns}) // the next one will do
			}
		case eventSignal:
			var n int32
			if json.Unmarshal(e.Data, &n) == nil {
				// That the program has ended meanwhile is no failure.
				_ = c.Call(ctx, &proto.SignalProcess{PID: pid, Signal: n}, &proto.Done{}, callTimeout)
			}
		}
	}
}

// Run is a program that runs on a rack, seen from its client.
type Run struct {
	client *control.Client
	// Stdin is the program's; close its writing side at the end. Stdout and Stderr end with the program.
	Stdin, Stdout, Stderr *control.Channel
	Started               Ended // PID and Home
}

// Run starts a program. Read Stdout and Stderr to their ends, then Wait; Close in any case. When ctx is done the program is hung up on.
func (c *Remote) Run(ctx context.Context, p *Program) (*Run, error) {
	cl, err := control.Open(ctx, c.socket, cmdRun, p)
	if err != nil {
		return nil, err
	}
	r := &Run{client: cl, Stdin: cl.Channel(control.Stdin), Stdout: cl.Channel(control.Stdout), Stderr: cl.Channel(control.Stderr)}
	e, err := cl.NextEvent()
	if err != nil {
		defer cl.Close()
		return nil, cl.Wait(nil)
	}
	if err := json.Unmarshal(e.Data, &r.Started); err != nil {
		cl.Close()
		return nil, err
	}
	return r, nil
}

// Resize tells the program's terminal its size.
func (r *Run) Resize(rows, columns uint16) error {
	return r.client.Event(eventResize, control.Resize{Rows: rows, Columns: columns})
}

// Signal sends a signal to the program's process group.
func (r *Run) Signal(s syscall.Signal) error { return r.client.Event(eventSignal, int(s)) }

// Wait waits for the end of the program.
func (r *Run) Wait() (e Ended, err error) {
	err = r.client.Wait(&e)
	return e, err
}

// Close gives the program up, if it still runs.
func (r *Run) Close() { r.client.Close() }
