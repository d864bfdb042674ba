package linuxguest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// Fields of the setup header of a bzImage (Linux, Documentation/arch/x86/boot.rst).
const (
	setupSects    = 0x1f1 // u8: sectors of real-mode code after the first
	headerMagic   = 0x202 // "HdrS"
	headerVersion = 0x206 // u16
	payloadOffset = 0x248 // u32, from the start of the protected-mode code; since 2.08
	payloadLength = 0x24c // u32

	maxKernel = 1 << 30 // more than any kernel: a bound on what a broken image can make us allocate
)

var (
	elfMagic  = []byte("\x7fELF")
	lz4Magic  = []byte("\x02\x21\x4c\x18") // of the legacy frame format
	gzipMagic = []byte("\x1f\x8b")
)

// Extract returns the uncompressed ELF file in a bzImage; an image that is an ELF
// file is returned as it is.
func Extract(image []byte) ([]byte, error) {
	if bytes.HasPrefix(image, elfMagic) {
		return image, nil
	}
	if len(image) < payloadLength+4 || string(image[headerMagic:headerMagic+4]) != "HdrS" {
		return nil, errors.New("neither an ELF file nor a bzImage")
	}
	if v := binary.LittleEndian.Uint16(image[headerVersion:]); v < 0x208 {
		return nil, fmt.Errorf("bzImage of boot protocol %d.%02d, want at least 2.08", v>>8, v&0xff)
	}
	sectors := uint64(image[setupSects])
	if sectors == 0 {
		sectors = 4
	}
	start := (sectors+1)*512 + uint64(binary.LittleEndian.Uint32(image[payloadOffset:]))
	n := uint64(binary.LittleEndian.Uint32(image[payloadLength:]))
	if n < 4 || start > uint64(len(image)) || n > uint64(len(image))-start {
		return nil, fmt.Errorf("bzImage is truncated: %d bytes, its payload is at %d and has %d", len(image), start, n)
	}
	payload := image[start : start+n]
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(payload, elfMagic):
		return payload, nil
	case bytes.HasPrefix(payload, lz4Magic):
		r = lz4.NewReader(bytes.NewReader(payload[:n-4]))
	case bytes.HasPrefix(payload, gzipMagic):
		r, err = gzip.NewReader(bytes.NewReader(payload))
	default:
		return nil, fmt.Errorf("payload begins with % x: neither LZ4 nor gzip, the formats known", payload[:4])
	}
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	// The build appends the uncompressed size, but for gzip, which ends with it anyway.
	size := binary.LittleEndian.Uint32(payload[n-4:])
	if size > maxKernel {
		return nil, fmt.Errorf("payload claims to have %d bytes uncompressed", size)
	}
	elf := bytes.NewBuffer(make([]byte, 0, size))
	if _, err := io.Copy(elf, io.LimitReader(r, int64(size)+1)); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if elf.Len() != int(size) {
		return nil, fmt.Errorf("payload has %d bytes uncompressed, want %d", elf.Len(), size)
	}
	if !bytes.HasPrefix(elf.Bytes(), elfMagic) {
		return nil, errors.New("payload is not an ELF file")
	}
	return elf.Bytes(), nil
}
