// Package control is how the command line talks to the launcher of a rack: one command a connection, over the Unix socket in the rack's
// directory.
//
// The client sends one line of JSON, {"version":1,"command":"kill","args":{…}}. From then on both sides send frames:
//
//	+0  u8   kind
//	+1  u8   channel
//	+2  u16  zero
//	+4  u32  length of the body, little endian; at most MaxFrame
//
//	kind        body
//	1 data      bytes of the channel
//	2 end       none: the sender has no more for the channel
//	3 credit    u32: the receiver of the channel has room for so many bytes more
//	4 event     JSON, an Event
//	5 result    JSON, a result or an error; by the server, and its last frame
//
// Channels go both ways and are flow-controlled each for itself: a sender may have Window bytes on the way, more when it is granted
// more. So a command with a program's standard input, output and error ([Stdin], [Stdout], [Stderr]), and with channels of its own from
// FirstFree on, needs no second connection, and none of them holds up another or the events (a terminal's new size, progress). Who closes the
// connection before the result is there has cancelled the command.
//
// A peer that breaks the rules ends its connection, not its peer. The server answers only processes of its own user.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Version of the protocol.
const Version = 1

// Limits.
const (
	MaxRequest = 1 << 20 // bytes of the first line
	MaxFrame   = 64 << 10
	MaxJSON    = 16 << 20 // bytes of a result, which goes in several frames if need be
	Window     = 256 << 10
	FirstFree  = 8 // the first channel without a meaning of its own
)

// Channels with a meaning.
const (
	Stdin  = 0 // client to server
	Stdout = 1 // server to client
	Stderr = 2 // server to client
)

// Errors.
var (
	// ErrProtocol: the peer broke the rules, or the connection broke.
	ErrProtocol = errors.New("control: protocol error")
	// ErrClosed: the connection was ended, by this side or the other, before there was a result.
	ErrClosed = errors.New("control: connection closed")
	// ErrNoServer: nobody listens at the socket.
	ErrNoServer = errors.New("control: no launcher listens")
)

// Code says what kind of failure a command met.
type Code string

// The codes of an Error.
const (
	CodeUsage       Code = "usage"    // the command or its arguments make no sense
	CodeNotFound    Code = "no-such"  // what it speaks of does not exist
	CodeConflict    Code = "conflict" // it cannot be done in this state
	CodeGuest       Code = "guest"    // a kernel failed
	CodeHost        Code = "host"     // the launcher or the machine it runs on failed
	CodeUnsupported Code = "unsupported"
	CodeCanceled    Code = "canceled"
)

// Error is the failure of a command.
type Error struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// Event is what either side tells the other while a command runs.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Resize is the Data of an event "resize", of a client whose terminal has a new size.
type Resize struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

type request struct {
	Version int             `json:"version"`
	Command string          `json:"command"`
	Args    json.RawMessage `json:"args,omitempty"`
}

type result struct {
	Error  *Error          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}
