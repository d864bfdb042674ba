package replica

import (
	"encoding/binary"
	"errors"
	"io"
)

// A part of a snapshot travels in frames: length u32, bytes; length 0 ends it. So a structure's Restore sees io.EOF
// where its part ends, however it buffers.

const maxFrame = 1 << 20

type frameWriter struct{ w io.Writer }

func (f *frameWriter) Write(b []byte) (int, error) {
	n := 0
	for len(b) > 0 {
		k := min(len(b), maxFrame)
		if err := f.head(k); err != nil {
			return n, err
		}
		m, err := f.w.Write(b[:k])
		n += m
		if err != nil {
			return n, err
		}
		b = b[k:]
	}
	return n, nil
}

func (f *frameWriter) head(n int) error {
	var h [4]byte
	binary.LittleEndian.PutUint32(h[:], uint32(n))
	_, err := f.w.Write(h[:])
	return err
}

func (f *frameWriter) end() error { return f.head(0) }

type frameReader struct {
	r    io.Reader
	left uint32
	done bool
}

func (f *frameReader) Read(b []byte) (int, error) {
	if f.done {
		return 0, io.EOF
	}
	if f.left == 0 {
		var h [4]byte
		if _, err := io.ReadFull(f.r, h[:]); err != nil {
			return 0, noEOF(err)
		}
		if f.left = binary.LittleEndian.Uint32(h[:]); f.left == 0 {
			f.done = true
			return 0, io.EOF
		}
	}
	n, err := f.r.Read(b[:min(len(b), int(f.left))])
	f.left -= uint32(n)
	return n, noEOF(err)
}

// noEOF makes an end of the stream inside a part an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
