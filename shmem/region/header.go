package region

import "fmt"

// Header is the first line of everything that lives in shared memory.
//
//	+0   u64  magic       what it is; stored last, so a half-made structure is not accepted
//	+8   u32  version     of the layout that follows
//	+12  u32  zero
//	+16  u64  generation  which life of the structure this is; never reused after a restart
type Header struct {
	Magic      uint64
	Version    uint32
	Generation uint64
}

// HeaderSize is the space a [Header] takes, in bytes.
const HeaderSize = 24

// WriteHeader writes h at off (a multiple of 8), the magic last. Everything behind the header must be in place before.
func (r Region) WriteHeader(off Off, h Header) error {
	if err := r.check(off, HeaderSize, 8); err != nil {
		return err
	}
	if h.Magic == 0 {
		return fmt.Errorf("%w: magic 0 means unformatted, want another", ErrHeader)
	}
	r.word(off).Store(0)
	r.word(off + 8).Store(uint64(h.Version))
	r.word(off + 16).Store(h.Generation)
	r.word(off).Store(h.Magic)
	return nil
}

// InvalidateHeader takes the magic away, so that nobody attaches while the structure is made anew.
func (r Region) InvalidateHeader(off Off) error { return r.StoreU64(off, 0) }

// ReadHeader checks magic and version at off and returns the header with the generation found.
func (r Region) ReadHeader(off Off, magic uint64, version uint32) (Header, error) {
	if err := r.check(off, HeaderSize, 8); err != nil {
		return Header{}, err
	}
	got := Header{Magic: r.word(off).Load(), Version: uint32(r.word(off + 8).Load()), Generation: r.word(off + 16).Load()}
	if got.Magic != magic {
		return Header{}, fmt.Errorf("%w: magic %#x at offset %#x, want %#x", ErrHeader, got.Magic, uint64(off), magic)
	}
	if got.Version != version {
		return Header{}, fmt.Errorf("%w: layout version %d at offset %#x, want %d", ErrHeader, got.Version, uint64(off), version)
	}
	return got, nil
}

// CheckGeneration refuses a structure that was made anew since the caller attached.
func (r Region) CheckGeneration(off Off, generation uint64) error {
	g, err := r.LoadU64(off + 16)
	if err != nil {
		return err
	}
	if g != generation {
		return fmt.Errorf("%w: generation %d at offset %#x, want %d", ErrHeader, g, uint64(off), generation)
	}
	return nil
}
