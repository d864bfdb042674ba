package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// errUnknownFate is the failure of a call that may have been served.
var errUnknownFate = errors.New("ctl: it is not known whether the ckernel has served this")

// call sends a request to the ckernel once. The error is errUnknownFate, wrapped, if it may have been served or if it makes sense to repeat it.
func (n *Node) call(ctx context.Context, q proto.Request, a proto.Message, timeout time.Duration) error {
	c, err := n.peer.Conn(layout.Ckernel)
	if err == nil {
		err = c.Call(ctx, q, a, timeout)
	}
	if err == nil {
		return nil
	}
	var remote *rpc.RemoteError
	if errors.As(err, &remote) {
		switch remote.Code {
		case proto.CodeNotMember:
			n.lost()
		case proto.CodeStale, proto.CodeCanceled, proto.CodeTimeout, proto.CodeBusy:
		default:
			return fmt.Errorf("ctl: %v: %w", q.Type(), err)
		}
	}
	if errors.Is(err, proto.ErrEncode) {
		return fmt.Errorf("ctl: %v: %w", q.Type(), err)
	}
	return fmt.Errorf("%w: %v: %w", errUnknownFate, q.Type(), err)
}

const callTimeout = 2 * time.Second

// repeat sends a request that is not about grants, again and again until its fate is known.
func (n *Node) repeat(ctx context.Context, q proto.Request, a proto.Message) error {
	return n.retry(ctx, func() error { return n.call(ctx, q, a, callTimeout) })
}

// retry calls f while this kernel is a member, again and again until it succeeds or fails with something else than errUnknownFate.
func (n *Node) retry(ctx context.Context, f func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if err := n.wait(ctx); err != nil {
			return err
		}
		err := f()
		if !errors.Is(err, errUnknownFate) {
			return err
		}
		if err := n.rest(ctx, pause, err); err != nil {
			return err
		}
	}
}

// rest waits before a repetition. The error, if ctx or this life ends, says what went wrong last.
func (n *Node) rest(ctx context.Context, pause time.Duration, last error) error {
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), last)
	case <-n.ctx.Done():
		return n.over()
	}
}

// obtain asks for units until the answer is known, and notes what was granted.
func (n *Node) obtain(ctx context.Context, q proto.Request, a proto.Message, granted func() []grant.Name) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if err := n.wait(ctx); err != nil {
			return err
		}
		n.op.RLock()
		if n.leaving { // guarded by op
			n.op.RUnlock()
			return fmt.Errorf("%w: it leaves the rack", ErrEnded)
		}
		err := n.call(ctx, q, a, callTimeout)
		if err == nil {
			if err = n.take(granted()); err != nil {
				// A machine that part of it was on has died meanwhile. What is left of it goes back, and another answer may do.
				n.forget(granted())
				err = fmt.Errorf("%w: %w", errUnknownFate, err)
			}
		}
		if errors.Is(err, errUnknownFate) {
			n.owes()
		}
		n.op.RUnlock()
		if !errors.Is(err, errUnknownFate) {
			return err
		}
		if err := n.rest(ctx, pause, err); err != nil {
			return err // the next beat claims
		}
		if err := n.settle(ctx); err != nil {
			return err
		}
	}
}

// take notes grants, after a look at the table: what is somebody else's there is not used, whatever the message says.
func (n *Node) take(names []grant.Name) error {
	r, err := n.grants()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		// An entry that is damaged at this moment is put right by the ckernel; one that says something else is not.
		if e, err := r.Read(name.Unit); errors.Is(err, grant.ErrNoSuch) || err == nil && (e.State != grant.Held || e.Grant != name.Grant) {
			return fmt.Errorf("%w: %v was granted, the table says %v by %v, grant %#x (%v)", ErrNotGranted, name, e.State, e.Owner, e.Grant, err)
		}
		n.held[name.Unit] = name.Grant
	}
	return nil
}

// grants is the reader of the table, once there is one.
func (n *Node) grants() (*grant.Reader, error) {
	if r := n.reader.Load(); r != nil {
		return r, nil
	}
	r, err := grant.Open(n.peer.Rack())
	if err != nil {
		return nil, err
	}
	n.reader.Store(r)
	return r, nil
}

// RequestCores asks for at least least and at most most cores, for a process or (0) this kernel itself, on a machine or (-1) wherever the
// scheduler says. It repeats itself across restarts of the ckernel until ctx ends. Errors: *rpc.RemoteError with the ckernel's reason
// (CodeExhausted: there are not so many), ctx's, ErrEnded.
func (n *Node) RequestCores(ctx context.Context, w proto.Want, least, most int) ([]proto.Core, error) {
	if least < 0 || most > proto.MaxList {
		return nil, fmt.Errorf("ctl: %d to %d cores, want 0 to %d", least, most, proto.MaxList)
	}
	var a proto.RequestCoresReply
	err := n.obtain(ctx, &proto.RequestCores{Want: w, Min: uint16(least), Max: uint16(max(most, 0))}, &a, func() []grant.Name { return coreNames(a.Cores) })
	return a.Cores, err
}

// RequestSlices asks for slices of 2 MiB, which are zero. For the rest see RequestCores. It waits for slices that are being zeroed.
func (n *Node) RequestSlices(ctx context.Context, w proto.Want, least, most int) ([]proto.Slice, error) {
	if least < 0 || most > proto.MaxList {
		return nil, fmt.Errorf("ctl: %d to %d slices, want 0 to %d", least, most, proto.MaxList)
	}
	var a proto.RequestSlicesReply
	err := n.obtain(ctx, &proto.RequestSlices{Want: w, Min: uint32(least), Max: uint32(max(most, 0))}, &a, func() []grant.Name { return sliceNames(a.Slices) })
	return a.Slices, err
}

// Slice is the memory of a slice that is granted to this machine or a process that runs on it.
func (n *Node) Slice(s proto.Slice) ([]byte, error) {
	off, err := n.peer.Rack().Slice(s.Slice)
	if err != nil {
		return nil, err
	}
	return n.peer.Rack().Region.Bytes(off, layout.SliceSize)
}

// ReleaseCores gives cores back; nobody may use them any more. Errors: *rpc.RemoteError (CodeDenied: some of them are not held; then none is
// released), ctx's, ErrEnded. After ctx's error they may be released or not, and are not this kernel's any more.
func (n *Node) ReleaseCores(ctx context.Context, cores []proto.Core) error {
	for part := range slices.Chunk(cores, proto.MaxList) {
		if err := n.release(ctx, &proto.ReleaseCores{Cores: part}, coreNames(part)); err != nil {
			return err
		}
	}
	return nil
}

// ReleaseSlices gives slices back. For the rest see ReleaseCores.
func (n *Node) ReleaseSlices(ctx context.Context, list []proto.Slice) error {
	for part := range slices.Chunk(list, proto.MaxList) {
		if err := n.release(ctx, &proto.ReleaseSlices{Slices: part}, sliceNames(part)); err != nil {
			return err
		}
	}
	return nil
}

// release forgets names and tells the ckernel. If the answer is lost, the next claim, which does not name them, is as good.
func (n *Node) release(ctx context.Context, q proto.Request, names []grant.Name) error {
	if err := n.wait(ctx); err != nil {
		return err
	}
	n.op.RLock()
	known := n.forget(names)
	err := n.call(ctx, q, &proto.Done{}, callTimeout)
	switch {
	case errors.Is(err, errUnknownFate):
		n.owes()
	case err != nil: // all or nothing: it was nothing
		n.mu.Lock()
		for _, k := range known {
			n.held[k.Unit] = k.Grant
		}
		n.mu.Unlock()
	}
	n.op.RUnlock()
	if errors.Is(err, errUnknownFate) {
		return n.settle(ctx)
	}
	return err
}

// forget removes names from those held and returns the ones that were.
func (n *Node) forget(names []grant.Name) (known []grant.Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range names {
		// The caller's name may be older: that of a slice changes when its machine goes and it comes to another.
		if g, ok := n.held[k.Unit]; ok && (grant.Entry{State: grant.Held, Grant: g}).Same(k) {
			delete(n.held, k.Unit)
			known = append(known, grant.Name{Unit: k.Unit, Grant: g})
		}
	}
	return known
}

// Adopt takes over responsibility for grants that another kernel has obtained on this machine, such as a core for a thread of a process
// that was started elsewhere: from now on this node claims and releases them. The other one calls Disown.
func (n *Node) Adopt(cores []proto.Core, list []proto.Slice) error {
	return n.take(append(coreNames(cores), sliceNames(list)...))
}

// Disown is the other half of Adopt.
func (n *Node) Disown(cores []proto.Core, list []proto.Slice) {
	n.forget(append(coreNames(cores), sliceNames(list)...))
}

// Holds is how many cores and slices this node was granted and answers for.
func (n *Node) Holds() (cores, slices int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for u := range n.held {
		if u.Core {
			cores++
		} else {
			slices++
		}
	}
	return cores, slices
}

// ExitProcess tells that a process has ended and runs nowhere any more: all it had, on any machine, is taken back.
func (n *Node) ExitProcess(ctx context.Context, q *proto.ExitProcess) error {
	err := n.repeat(ctx, q, &proto.Done{})
	n.owes() // the claim tells what of it was known here
	return err
}

// Say sends a message for people: it goes to the rack's journal. Nil does not mean that it will arrive.
func (n *Node) Say(level uint8, text string) error {
	c, err := n.peer.Conn(layout.Ckernel)
	if err != nil {
		return err
	}
	ns, _ := n.RackTime()
	return c.Event(&proto.LogLine{TimeNs: ns, Level: level, Text: proto.CutText(text)})
}

func coreNames(cores []proto.Core) []grant.Name {
	names := make([]grant.Name, len(cores))
	for i, k := range cores {
		names[i] = grant.Name{Unit: grant.Core(int(k.Machine), int(k.Core)), Grant: k.Grant}
	}
	return names
}

func sliceNames(list []proto.Slice) []grant.Name {
	names := make([]grant.Name, len(list))
	for i, s := range list {
		names[i] = grant.Name{Unit: grant.Slice(s.Slice), Grant: s.Grant}
	}
	return names
}
