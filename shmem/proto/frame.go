package proto

import (
	"encoding/binary"
	"fmt"
)

// FrameBytes is the size of a [Frame], which every message in a ring begins with.
const FrameBytes = 24

// Kind says what a frame does.
type Kind uint8

// The kinds of frames.
const (
	KindHello  Kind = iota + 1 // "this is my life now": no body; fails what the receiver has under way with a former one
	KindCall                   // a request
	KindReply                  // its reply
	KindError                  // its failure: an ErrorReply
	KindCancel                 // the caller is not interested any more: no body
	KindEvent                  // a request without a reply; ID is 0
	KindOpen                   // a request that opens a stream; Arg is the window it grants
	KindAccept                 // the stream is open: a reply; Arg is the window it grants
	KindData                   // bytes of a stream; at least one
	KindCredit                 // Arg more bytes may be sent
	KindEnd                    // the sender of this sends no more data; no body, or an ErrorReply with which the stream failed
	kinds
)

func (k Kind) String() string {
	if k > 0 && k < kinds {
		return [...]string{"hello", "call", "reply", "error", "cancel", "event", "open", "accept", "data", "credit", "end"}[k-1]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Frame is the head of a message in a ring.
//
//	+0   u8   version
//	+1   u8   kind
//	+2   u16  type of the request (also in replies)
//	+4   u32  arg: of a call, its timeout in microseconds, 0 for none
//	+8   u64  id of the call or stream; bit 63 tells that the receiver of this frame chose it
//	+16  u32  generation of the sender, modulo 2^32
//	+20  u32  generation of the receiver that is meant, 0 for whatever it is
type Frame struct {
	Kind     Kind
	Type     Type
	Arg      uint32
	ID       uint64
	From, To uint32
}

// Put encodes f to b.
func (f *Frame) Put(b *[FrameBytes]byte) {
	b[0], b[1] = Version, byte(f.Kind)
	binary.LittleEndian.PutUint16(b[2:], uint16(f.Type))
	binary.LittleEndian.PutUint32(b[4:], f.Arg)
	binary.LittleEndian.PutUint64(b[8:], f.ID)
	binary.LittleEndian.PutUint32(b[16:], f.From)
	binary.LittleEndian.PutUint32(b[20:], f.To)
}

// ParseFrame splits a message of a ring into its frame and the rest. The error is ErrDecode.
func ParseFrame(b []byte) (Frame, []byte, error) {
	if len(b) < FrameBytes {
		return Frame{}, nil, fmt.Errorf("%w: %d bytes, a frame takes %d", ErrDecode, len(b), FrameBytes)
	}
	if b[0] != Version {
		return Frame{}, nil, fmt.Errorf("%w: protocol version %d, want %d", ErrDecode, b[0], Version)
	}
	f := Frame{
		Kind: Kind(b[1]),
		Type: Type(binary.LittleEndian.Uint16(b[2:])),
		Arg:  binary.LittleEndian.Uint32(b[4:]),
		ID:   binary.LittleEndian.Uint64(b[8:]),
		From: binary.LittleEndian.Uint32(b[16:]),
		To:   binary.LittleEndian.Uint32(b[20:]),
	}
	if f.Kind == 0 || f.Kind >= kinds {
		return Frame{}, nil, fmt.Errorf("%w: frame of %v", ErrDecode, f.Kind)
	}
	return f, b[FrameBytes:], nil
}

// Code is why a request failed, for programs. Numbers are part of the protocol.
type Code uint16

// The codes of an ErrorReply.
const (
	CodeUnknown     Code = iota // anything else; the text says more
	CodeUnsupported             // the receiver has no handler for this type
	CodeMalformed               // the request did not decode, or makes no sense
	CodeTimeout                 // its time was over before it was served
	CodeCanceled
	CodeBusy      // the receiver serves as many as it can
	CodeStale     // the request was meant for a former life of the receiver
	CodeNotMember // the sender must register first
	CodeExhausted // no core or slice is free
	CodeNotFound
	CodeDenied // the sender does not own what it speaks of
	CodeConflict
	CodeErrno    // a file operation or the like failed: Errno says how
	CodeInternal // the handler panicked
	codes
)

func (c Code) String() string {
	if c < codes {
		return [...]string{"error", "unsupported", "malformed", "timeout", "canceled", "busy", "stale generation", "not a member",
			"exhausted", "not found", "denied", "conflict", "errno", "internal"}[c]
	}
	return fmt.Sprintf("code(%d)", uint16(c))
}
