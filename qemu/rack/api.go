package rack

import (
	"context"
	"encoding/json"
	"errors"
	"syscall"
	"time"

	"dinos/qemu/rack/control"
	"dinos/qemu/rack/statedir"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// The commands of a launcher's control socket. Those that speak of a kernel have KernelArgs.
const (
	cmdStatus  = "status" // StatusArgs → Status
	cmdSample  = "sample" // → Sample
	cmdKill    = "kill"
	cmdStop    = "stop"
	cmdPause   = "pause"
	cmdResume  = "resume"
	cmdRestart = "restart"
	cmdAdd     = "add-dkernel" // → name
	cmdEvents  = "events"      // eventsArgs; events "rack" until cancelled
	cmdSched   = "sched"       // schedArgs → text
	cmdRun     = "run"         // Program → Ended; see run.go
	cmdHold    = "hold"        // until cancelled: then the rack ends
	cmdDown    = "down"        // downArgs

	rackEvent = "rack"
)

type kernelArgs struct {
	Kernel string `json:"kernel"`
}

type statusArgs struct {
	Check bool `json:"check"`
}

type eventsArgs struct {
	Follow bool `json:"follow"`
}

type downArgs struct {
	Keep bool `json:"keep"`
}

// schedArgs: Do is show (Name as proto.SchedShow.What), set or explain.
type schedArgs struct {
	Do   string `json:"do"`
	Name string `json:"name,omitempty"`
	Text string `json:"text,omitempty"`
}

// handlers serves the commands. down ends the rack: it keeps what it leaves if it is told to, and returns when all kernels are gone.
func (r *Rack) handlers(down func(keep bool)) map[string]control.Handler {
	onKernel := func(f func(context.Context, string) error) control.Handler {
		return func(ctx context.Context, s *control.Session) (any, error) {
			var a kernelArgs
			if err := s.Args(&a); err != nil {
				return nil, err
			}
			return nil, coded(f(ctx, a.Kernel))
		}
	}
	return map[string]control.Handler{
		cmdKill:    onKernel(func(_ context.Context, name string) error { return r.Kill(name) }),
		cmdStop:    onKernel(r.Stop),
		cmdPause:   onKernel(r.Pause),
		cmdResume:  onKernel(r.Resume),
		cmdRestart: onKernel(r.Restart),
		cmdAdd: func(ctx context.Context, _ *control.Session) (any, error) {
			name, err := r.Add(ctx)
			return name, coded(err)
		},
		cmdStatus: func(ctx context.Context, s *control.Session) (any, error) {
			var a statusArgs
			if err := s.Args(&a); err != nil {
				return nil, err
			}
			return r.Status(ctx, a.Check), nil
		},
		cmdRun:    r.serveRun,
		cmdSample: func(context.Context, *control.Session) (any, error) { return r.Sample(), nil },
		cmdEvents: r.serveEvents,
		cmdSched: func(ctx context.Context, s *control.Session) (any, error) {
			var a schedArgs
			err := s.Args(&a)
			if err != nil {
				return nil, err
			}
			text := ""
			switch a.Do {
			case "show":
				text, err = r.SchedShow(ctx, a.Name)
			case "set":
				text, err = r.SchedSet(ctx, a.Name, a.Text)
			case "explain":
				text, err = r.SchedExplain(ctx, a.Text)
			default:
				err = control.Errorf(control.CodeUsage, "%s: %q, want show, set or explain", cmdSched, a.Do)
			}
			return text, coded(err)
		},
		cmdHold: func(ctx context.Context, s *control.Session) (any, error) {
			if err := s.Event("held", nil); err != nil {
				return nil, err
			}
			<-ctx.Done()
			down(false)
			return nil, nil
		},
		cmdDown: func(_ context.Context, s *control.Session) (any, error) {
			var a downArgs
			if err := s.Args(&a); err != nil {
				return nil, err
			}
			down(a.Keep)
			return nil, nil
		},
	}
}

func (r *Rack) serveEvents(ctx context.Context, s *control.Session) (any, error) {
	var a eventsArgs
	if err := s.Args(&a); err != nil {
		return nil, err
	}
	ch, stop := r.events.subscribe()
	defer stop()
	if !a.Follow {
		return r.events.recent(), nil
	}
	for {
		select {
		case e := <-ch:
			if err := s.Event(rackEvent, e); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return []Event{}, nil
		}
	}
}

// coded gives an error the code that its client can tell it by.
func coded(err error) error {
	var boot *BootError
	var remote *rpc.RemoteError
	var already *control.Error
	code := control.CodeHost
	switch {
	case err == nil, errors.As(err, &already), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, ErrNoKernel):
		code = control.CodeNotFound
	case errors.Is(err, ErrState), errors.Is(err, ErrFull), errors.Is(err, ErrClosed), errors.Is(err, statedir.ErrRunning):
		code = control.CodeConflict
	case errors.Is(err, ErrConfig), errors.Is(err, proto.ErrEncode):
		code = control.CodeUsage
	case errors.As(err, &boot):
		code = control.CodeGuest
	case errors.As(err, &remote):
		code = control.CodeGuest
		switch remote.Code {
		case proto.CodeMalformed, proto.CodeConflict:
			code = control.CodeUsage
		case proto.CodeUnsupported:
			code = control.CodeUnsupported
		case proto.CodeNotFound:
			code = control.CodeNotFound
		case proto.CodeErrno:
			switch syscall.Errno(remote.Errno) {
			case syscall.ENOENT, syscall.ENOTDIR:
				code = control.CodeNotFound
			case syscall.EACCES, syscall.ENOEXEC, syscall.ELIBBAD, syscall.EISDIR: // no program
				code = control.CodeUnsupported
			}
		}
	}
	return &control.Error{Code: code, Text: err.Error()}
}

// Remote is a rack that a launcher holds. The errors of its methods are *control.Error for what the launcher reports, and those of package
// control.
type Remote struct {
	Base, Name string
	socket     string
}

// Connect finds a rack that runs. Errors: statedir.ErrNone, and statedir.ErrName.
func Connect(base, name string) (*Remote, error) {
	if !statedir.Running(base, name) {
		if _, err := statedir.Load(base, name); err != nil {
			return nil, err
		}
		return nil, control.Errorf(control.CodeConflict, "rack %q is dead: its launcher has ended; 'dump' and 'log' show what is left, 'down' removes it", name)
	}
	return &Remote{base, name, socketPath(base, name)}, nil
}

// Share is the directory of the host that the rack's kernels have at /host, "" if there is none, and whether they may change it.
func (c *Remote) Share() (dir string, write bool, err error) {
	st, err := statedir.Load(c.Base, c.Name)
	if err != nil || len(st.Options) == 0 {
		return "", false, err
	}
	var cfg Config
	if err := json.Unmarshal(st.Options, &cfg); err != nil {
		return "", false, err
	}
	return cfg.Share, cfg.ShareWrite, nil
}

func (c *Remote) call(ctx context.Context, command string, args, result any) error {
	return control.Call(ctx, c.socket, command, args, result)
}

// Status tells how the rack is.
func (c *Remote) Status(ctx context.Context, check bool) (*Status, error) {
	s := &Status{}
	return s, c.call(ctx, cmdStatus, statusArgs{check}, s)
}

// Sample reads the rack's counters.
func (c *Remote) Sample(ctx context.Context) (*Sample, error) {
	s := &Sample{}
	return s, c.call(ctx, cmdSample, nil, s)
}

// Kill, Stop, Pause, Resume and Restart are the methods of Rack.
func (c *Remote) Kill(ctx context.Context, kernel string) error {
	return c.call(ctx, cmdKill, kernelArgs{kernel}, nil)
}

// Stop is [Rack.Stop].
func (c *Remote) Stop(ctx context.Context, kernel string) error {
	return c.call(ctx, cmdStop, kernelArgs{kernel}, nil)
}

// Pause is [Rack.Pause].
func (c *Remote) Pause(ctx context.Context, kernel string) error {
	return c.call(ctx, cmdPause, kernelArgs{kernel}, nil)
}

// Resume is [Rack.Resume].
func (c *Remote) Resume(ctx context.Context, kernel string) error {
	return c.call(ctx, cmdResume, kernelArgs{kernel}, nil)
}

// Restart is [Rack.Restart].
func (c *Remote) Restart(ctx context.Context, kernel string) error {
	return c.call(ctx, cmdRestart, kernelArgs{kernel}, nil)
}

// Add is [Rack.Add].
func (c *Remote) Add(ctx context.Context) (name string, err error) {
	err = c.call(ctx, cmdAdd, nil, &name)
	return name, err
}

// SchedShow is [Rack.SchedShow].
func (c *Remote) SchedShow(ctx context.Context, what string) (text string, err error) {
	err = c.call(ctx, cmdSched, schedArgs{Do: "show", Name: what}, &text)
	return text, err
}

// SchedSet is [Rack.SchedSet].
func (c *Remote) SchedSet(ctx context.Context, name, policy string) (said string, err error) {
	err = c.call(ctx, cmdSched, schedArgs{Do: "set", Name: name, Text: policy}, &said)
	return said, err
}

// SchedExplain is [Rack.SchedExplain].
func (c *Remote) SchedExplain(ctx context.Context, requests string) (said string, err error) {
	err = c.call(ctx, cmdSched, schedArgs{Do: "explain", Text: requests}, &said)
	return said, err
}

// Events returns the last events.
func (c *Remote) Events(ctx context.Context) (list []Event, err error) {
	err = c.call(ctx, cmdEvents, eventsArgs{}, &list)
	return list, err
}

// Follow calls f with each event until ctx is done (nil) or the launcher is gone.
func (c *Remote) Follow(ctx context.Context, f func(Event)) error {
	cl, err := control.Open(ctx, c.socket, cmdEvents, eventsArgs{Follow: true})
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		ev, err := cl.NextEvent()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return cl.Wait(nil)
		}
		var e Event
		if ev.Name == rackEvent && json.Unmarshal(ev.Data, &e) == nil {
			f(e)
		}
	}
}

// Hold ends the rack when this process ends, however that happens, or release is called.
func (c *Remote) Hold(ctx context.Context) (release func(), err error) {
	cl, err := control.Open(ctx, c.socket, cmdHold, nil)
	if err != nil {
		return nil, err
	}
	if _, err := cl.NextEvent(); err != nil {
		defer cl.Close()
		return nil, cl.Wait(nil)
	}
	return cl.Close, nil
}

// leaveWait is how long a launcher may take to remove its files after its kernels are gone.
const leaveWait = 10 * time.Second

// Down ends the rack and returns when its name is free. With keep, directory and memory stay.
func (c *Remote) Down(ctx context.Context, keep bool) error {
	if err := c.call(ctx, cmdDown, downArgs{keep}, nil); err != nil {
		return err
	}
	for end := time.Now().Add(leaveWait); statedir.Running(c.Base, c.Name); {
		if time.Now().After(end) {
			return control.Errorf(control.CodeHost, "the kernels of rack %q are gone, but its launcher still runs after %v", c.Name, leaveWait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}
