// Package rpc makes calls and streams over a pair of rings: many at a time, with deadlines, cancellation and typed errors,
// between kernels and the host tool.
//
// A [Conn] is the connection to one peer, a [Loop] serves all of a kernel's connections, a [Mux] has the handlers.
//
// # Who polls
//
// A ring has one receiver, so a Conn's rxMu decides who is it at a moment. Usually it is a goroutine that waits for its
// reply: it polls itself for a while, which spares the switch to another goroutine, and completes the calls of others that it
// meets. When nobody polls, the receiver is armed and a doorbell wakes the Loop, which polls all connections, spins a
// little, arms them and sleeps. A Conn's receiver is armed exactly when nobody polls it.
//
// # Nothing waits for the peer
//
// Who polls must never wait for room in the outgoing ring: two peers that did would wait for each other. So a frame that
// does not fit goes to a queue in private memory, and follows when the doorbell tells of room. The queue is bounded
// because what may be under way is: MaxCalls calls, a window of bytes for each of MaxStreams streams, and a limit for events,
// which fail with ErrBusy. Replies are bounded by the peer's calls; a peer that sends on and on without taking its
// replies is cut off with ErrCorrupt.
//
// # Lives
//
// Each frame carries the generations of the sender and of the receiver that it means. A frame from or for a former life
// is dropped, a call for one is answered CodeStale. The first frame of a new life (a hello, as the connection is made) fails
// all that was under way with ErrPeerRestarted. [Conn.PeerDied] does so with ErrPeerDead, on the word of the membership.
//
// # Delivery
//
// A call whose error is a *RemoteError was answered. With any other error after it was sent, it may have been served or not,
// or be served still: who repeats calls makes them idempotent.
//
// # Locks
//
// Conn.rxMu before Stream.mu before Conn.mu; Conn.rxMu before Conn.txMu; Request.mu and Loop.mu last. Inline handlers run
// with rxMu held: they must not block and not call the same peer.
package rpc

import (
	"context"
	"errors"
	"fmt"

	"dinos/shmem/proto"
)

// Errors of calls and streams that no peer has answered.
var (
	// ErrTimeout: no reply in time.
	ErrTimeout = errors.New("rpc: timeout")
	// ErrPeerDead: the membership has declared the peer dead.
	ErrPeerDead = errors.New("rpc: peer is dead")
	// ErrPeerRestarted: the peer began a new life after the call was sent.
	ErrPeerRestarted = errors.New("rpc: peer restarted")
	// ErrCorrupt: the peer, or somebody, wrote what no correct peer writes. The connection is of no more use.
	ErrCorrupt = errors.New("rpc: connection is corrupt")
	// ErrReset: the rings were made anew while the call was under way. The connection goes on.
	ErrReset = errors.New("rpc: rings were made anew")
	// ErrClosed: this end has closed the connection or stream.
	ErrClosed = errors.New("rpc: closed")
	// ErrBusy: too much is queued for the peer.
	ErrBusy = errors.New("rpc: too much is queued for the peer")
	// ErrConfig: a connection cannot be made so.
	ErrConfig = errors.New("rpc: bad configuration")
)

// RemoteError is a failure that the peer's handler reports. A handler that returns one decides what the caller gets.
type RemoteError struct {
	Code  proto.Code
	Errno uint32 // with CodeErrno
	Text  string
}

func (e *RemoteError) Error() string {
	if e.Code == proto.CodeErrno {
		return fmt.Sprintf("peer: errno %d: %s", e.Errno, e.Text)
	}
	return fmt.Sprintf("peer: %v: %s", e.Code, e.Text)
}

// Errorf makes a RemoteError for a handler to return.
func Errorf(code proto.Code, format string, args ...any) error {
	return &RemoteError{Code: code, Text: fmt.Sprintf(format, args...)}
}

// Is makes errors.Is true for ErrTimeout, ErrPeerRestarted and context.Canceled also by the peer's word of it.
func (e *RemoteError) Is(target error) bool {
	switch e.Code {
	case proto.CodeTimeout:
		return target == ErrTimeout
	case proto.CodeStale:
		return target == ErrPeerRestarted
	case proto.CodeCanceled:
		return target == context.Canceled
	}
	return false
}

// toReply is what a handler's error is on the wire.
func toReply(err error) *proto.ErrorReply {
	r := &proto.ErrorReply{Code: proto.CodeUnknown, Text: err.Error()}
	var re *RemoteError
	switch {
	case errors.As(err, &re):
		r.Code, r.Errno, r.Text = re.Code, re.Errno, re.Text
	case errors.Is(err, context.Canceled):
		r.Code = proto.CodeCanceled
	case errors.Is(err, ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		r.Code = proto.CodeTimeout
	}
	r.Text = proto.CutText(r.Text)
	return r
}
