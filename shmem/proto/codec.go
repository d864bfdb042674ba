// Package proto is every control message of the rack. registry.go is the one list of their types; messages.go and files.go
// have their fields.
//
// # Encoding
//
// Fields follow each other without padding: integers little endian at their width, bool as a byte 0 or 1, strings, bytes
// and lists behind a length of 32 bits, with a limit each. A message says its fields once, in its code method, which encodes
// and decodes. There is one encoding of a value: what decodes encodes to the same bytes again, and rest behind
// the last field is an error.
//
// Nothing is optional and nothing is skipped: all kernels of a rack run the same build. [Version] is in each frame; it is
// raised when the encoding of anything changes, which the golden bytes of the tests show. Numbers of types are never reused.
//
// Encoding cannot fail: what is beyond a limit sets a flag that is looked at once, at the end.
//
// Messages are plain values. Decoding into a message that was used before reuses its memory.
package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version of the encoding of frames and messages.
const Version = 1

// Limits of what a message holds.
const (
	MaxName    = 255       // bytes of a host, program or mount name
	MaxPath    = 4096      // bytes of a path
	MaxText    = 1024      // bytes of a log line or an error message
	MaxData    = 16 << 10  // bytes of file or stream data in a message
	MaxArgs    = 1024      // arguments, or environment strings
	MaxArg     = 4096      // bytes of one
	MaxList    = 1024      // entries of other lists
	MaxMessage = 128 << 10 // bytes of an encoded message, whatever its parts
)

// Errors.
var (
	// ErrEncode: a field is beyond its limit. The message cannot be sent.
	ErrEncode = errors.New("proto: message beyond its limits")
	// ErrDecode: the bytes are no such message.
	ErrDecode = errors.New("proto: malformed message")
)

// Message is a request or a reply. All of them are in this package.
type Message interface {
	// code encodes or decodes all fields, as c says.
	code(c *codec)
}

// codec is a buffer that is written to or consumed.
type codec struct {
	b        []byte // what was encoded, or what is left to decode
	decoding bool
	bad      string // sticky: the first thing that went wrong
}

func (c *codec) fail(what string) {
	if c.bad == "" {
		c.bad = what
	}
	if c.decoding {
		c.b = nil
	}
}

// take consumes n bytes; it returns nil if there are fewer.
func (c *codec) take(n int) []byte {
	if len(c.b) < n {
		c.fail("too short")
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *codec) u8(p *uint8) *codec {
	if !c.decoding {
		c.b = append(c.b, *p)
		return c
	}
	*p = 0
	if v := c.take(1); v != nil {
		*p = v[0]
	}
	return c
}

func (c *codec) u16(p *uint16) *codec {
	if !c.decoding {
		c.b = binary.LittleEndian.AppendUint16(c.b, *p)
		return c
	}
	*p = 0
	if v := c.take(2); v != nil {
		*p = binary.LittleEndian.Uint16(v)
	}
	return c
}

func (c *codec) u32(p *uint32) *codec {
	if !c.decoding {
		c.b = binary.LittleEndian.AppendUint32(c.b, *p)
		return c
	}
	*p = 0
	if v := c.take(4); v != nil {
		*p = binary.LittleEndian.Uint32(v)
	}
	return c
}

func (c *codec) u64(p *uint64) *codec {
	if !c.decoding {
		c.b = binary.LittleEndian.AppendUint64(c.b, *p)
		return c
	}
	*p = 0
	if v := c.take(8); v != nil {
		*p = binary.LittleEndian.Uint64(v)
	}
	return c
}

func (c *codec) i32(p *int32) *codec {
	u := uint32(*p)
	c.u32(&u)
	*p = int32(u)
	return c
}

func (c *codec) i64(p *int64) *codec {
	u := uint64(*p)
	c.u64(&u)
	*p = int64(u)
	return c
}

func (c *codec) bool(p *bool) *codec {
	var v uint8
	if *p {
		v = 1
	}
	c.u8(&v)
	if v > 1 {
		c.fail("a bool that is neither 0 nor 1")
	}
	*p = v == 1
	return c
}

// length codes the length of what follows, at most max.
func (c *codec) length(n, max int) int {
	if n > max {
		c.fail("a field longer than its limit")
		n = 0
	}
	v := uint32(n)
	c.u32(&v)
	if v > uint32(max) {
		c.fail("a field longer than its limit")
		return 0
	}
	return int(v)
}

// CutText makes a text for people, such as an error, fit into a field of MaxText bytes.
func CutText(s string) string { return s[:min(len(s), MaxText)] }

func (c *codec) str(p *string, max int) *codec {
	n := c.length(len(*p), max)
	if !c.decoding {
		c.b = append(c.b, (*p)[:n]...)
		return c
	}
	// Names come again and again; keep the string that is there.
	if v := c.take(n); string(v) != *p {
		*p = string(v)
	}
	return c
}

func (c *codec) bytes(p *[]byte, max int) *codec {
	// Null is nothing but this field, so its usual case is worth a shortcut: no bytes.
	if len(*p) == 0 {
		if !c.decoding {
			c.b = append(c.b, 0, 0, 0, 0)
			return c
		}
		if len(c.b) >= 4 && binary.LittleEndian.Uint32(c.b) == 0 {
			c.b = c.b[4:]
			return c
		}
	}
	n := c.length(len(*p), max)
	if !c.decoding {
		c.b = append(c.b, (*p)[:n]...)
		return c
	}
	*p = append((*p)[:0], c.take(n)...)
	return c
}

// list codes a list of up to max elements. An element takes at least a byte, so the bytes that came bound the memory.
func list[T any](c *codec, p *[]T, max int, element func(*codec, *T) *codec) {
	n := c.length(len(*p), max)
	if !c.decoding {
		for i := range n {
			element(c, &(*p)[i])
		}
		return
	}
	s := (*p)[:0]
	for range n {
		if c.bad != "" || len(c.b) == 0 {
			c.fail("too short")
			break
		}
		if len(s) < cap(s) {
			s = s[:len(s)+1] // with the memory of the element that was there
		} else {
			var zero T
			s = append(s, zero)
		}
		element(c, &s[len(s)-1])
	}
	*p = s
}

func (c *codec) strs(p *[]string, max, maxEach int) *codec {
	list(c, p, max, func(c *codec, s *string) *codec { return c.str(s, maxEach) })
	return c
}

// Coder encodes and decodes without allocating anything itself. The zero Coder is ready; it is for one goroutine at a time.
type Coder struct{ c codec }

// Encode appends the encoding of m to dst. The error is ErrEncode; dst's bytes are kept then, and nothing is added.
func (k *Coder) Encode(dst []byte, m Message) ([]byte, error) {
	k.c = codec{b: dst}
	m.code(&k.c)
	b, bad := k.c.b, k.c.bad
	k.c = codec{}
	if bad == "" && len(b)-len(dst) > MaxMessage {
		bad = fmt.Sprintf("%d bytes, at most %d", len(b)-len(dst), MaxMessage)
	}
	if bad != "" {
		return dst, fmt.Errorf("%w: %T: %s", ErrEncode, m, bad)
	}
	return b, nil
}

// Decode fills m from b, all of it. b must be private memory, not shared. The error is ErrDecode; m is undefined then.
func (k *Coder) Decode(b []byte, m Message) error {
	k.c = codec{b: b, decoding: true}
	m.code(&k.c)
	if k.c.bad == "" && len(k.c.b) > 0 {
		k.c.fail("bytes behind the last field")
	}
	bad := k.c.bad
	k.c = codec{}
	if bad != "" {
		return fmt.Errorf("%w: %T in %d bytes: %s", ErrDecode, m, len(b), bad)
	}
	return nil
}

// Encode is [Coder.Encode] for those who do it once.
func Encode(dst []byte, m Message) ([]byte, error) { return new(Coder).Encode(dst, m) }

// Decode is [Coder.Decode] for those who do it once.
func Decode(b []byte, m Message) error { return new(Coder).Decode(b, m) }
