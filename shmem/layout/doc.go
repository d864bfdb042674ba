// Package layout is the byte map of the rack's shared memory: where everything is, how it is made, opened and checked, and
// how it is printed when nothing works any more.
//
//	superblock   magic, version, rack generation, the configuration that all offsets follow from
//	machines     a block of 1 KiB per peer: identity, heartbeat, clock, fence, mailbox, statistics
//	grants       reserved for package grant: header, an entry per slice, an entry per core
//	inboxes      a ring with many senders per peer
//	rings        a ring with one sender per ordered pair of kernels
//	host rings   two per kernel, to the host tool and back
//	logs         of node replication
//	slices       2 MiB each, to the end
//
// Peers are numbered: 0 is the ckernel, 1 to Machines-1 are dkernels, and the number Machines is the host tool, which is a peer
// like the others on the same rings. Areas start on pages, slices on 2 MiB.
//
// Offsets are never read from shared memory. [Compute] derives them from the [Config], and [Open] reads the Config
// from the superblock, where a checksum covers it, and checks that all of it fits.
//
// # Who makes what
//
// The host tool formats the memory before any machine runs ([Format], with a rack generation that it never used before). A
// kernel opens it, and takes its machine block with a generation of its own. Words have one writer each, named beside
// their offset; the others only read. Nobody takes a value from there without checking it.
package layout

import (
	"errors"
	"fmt"

	"dinos/shmem/region"
	"dinos/shmem/ring"
)

// Errors; each returned error wraps one and says what was found and what would be right.
var (
	// ErrConfig: no layout can be made from the configuration.
	ErrConfig = errors.New("layout: bad configuration")
	// ErrUnformatted: the memory does not hold a rack.
	ErrUnformatted = errors.New("layout: no rack in this memory")
	// ErrVersion: the memory was formatted by a build with another layout.
	ErrVersion = errors.New("layout: other layout version")
	// ErrCorrupt: the superblock is damaged.
	ErrCorrupt = errors.New("layout: superblock is corrupt")
	// ErrTooSmall: there is less memory than the layout takes.
	ErrTooSmall = errors.New("layout: memory too small")
	// ErrNoSuch: a peer, log or slice that this rack does not have.
	ErrNoSuch = errors.New("layout: no such part")
)

// Limits and sizes.
const (
	Magic   = 0x6b63617273f1d01d // not text: no file of anybody else's begins like this
	Version = 1

	MinMachines = 1
	MaxMachines = 32
	MaxCores    = 64 // per machine, in the grant table
	MaxLogs     = 1024
	MaxSize     = 1 << 45

	PageSize      = 4 << 10
	SliceSize     = 2 << 20
	MachineBytes  = 0x400
	SuperBytes    = PageSize
	InboxSlotSize = 128

	// GrantHeaderBytes and GrantEntryBytes are what is reserved for package grant: a header, then an entry per slice, then one
	// per core of each machine.
	GrantHeaderBytes = PageSize
	GrantEntryBytes  = 64
)

// Defaults of a Config.
const (
	DefaultRingBytes     = 64 << 10
	DefaultHostRingBytes = 256 << 10
	DefaultInboxSlots    = 256
	DefaultLogs          = 16
	DefaultLogBytes      = 2 << 20
)

// Config is what a layout follows from. Zero fields but Size and Machines take the defaults above (NoLogs for none).
type Config struct {
	Size          uint64 // bytes of shared memory, a multiple of 2 MiB
	Machines      int    // kernels that may exist at a time, the ckernel included
	RingBytes     uint64 // data of a ring between two kernels, a power of two
	HostRingBytes uint64 // data of a ring between a kernel and the host tool, a power of two
	InboxSlots    uint64 // a power of two
	Logs          int    // NoLogs for none
	LogBytes      uint64 // a multiple of the page size
}

// NoLogs as Config.Logs asks for none.
const NoLogs = -1

func (c Config) withDefaults() Config {
	set := func(p *uint64, v uint64) {
		if *p == 0 {
			*p = v
		}
	}
	set(&c.RingBytes, DefaultRingBytes)
	set(&c.HostRingBytes, DefaultHostRingBytes)
	set(&c.InboxSlots, DefaultInboxSlots)
	set(&c.LogBytes, DefaultLogBytes)
	switch c.Logs {
	case 0:
		c.Logs = DefaultLogs
	case NoLogs:
		c.Logs = 0
	}
	return c
}

func (c Config) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
	pow2 := func(v, lo, hi uint64) bool { return v >= lo && v <= hi && v&(v-1) == 0 }
	switch {
	case c.Size == 0 || c.Size%SliceSize != 0 || c.Size > MaxSize:
		return bad("size %d, want a multiple of %d up to %d", c.Size, SliceSize, uint64(MaxSize))
	case c.Machines < MinMachines || c.Machines > MaxMachines:
		return bad("%d machines, want %d to %d", c.Machines, MinMachines, MaxMachines)
	case !pow2(c.RingBytes, PageSize, 1<<24):
		return bad("rings of %d bytes, want a power of two from %d to %d", c.RingBytes, PageSize, 1<<24)
	case !pow2(c.HostRingBytes, PageSize, 1<<24):
		return bad("host rings of %d bytes, want a power of two from %d to %d", c.HostRingBytes, PageSize, 1<<24)
	case !pow2(c.InboxSlots, 16, ring.MaxSlots):
		return bad("inboxes of %d slots, want a power of two from 16 to %d", c.InboxSlots, ring.MaxSlots)
	case c.Logs < 0 || c.Logs > MaxLogs:
		return bad("%d logs, want 0 (as NoLogs) to %d", c.Logs, MaxLogs)
	case c.LogBytes%PageSize != 0 || c.LogBytes == 0 || c.LogBytes > 1<<32:
		return bad("logs of %d bytes, want a multiple of %d up to %d", c.LogBytes, PageSize, uint64(1)<<32)
	}
	return nil
}

// Area is Count parts of Stride bytes each, the first at Off.
type Area struct {
	Off    region.Off
	Stride uint64
	Count  uint64
}

// Bytes is the size of the whole area.
func (a Area) Bytes() uint64 { return a.Stride * a.Count }

// End is the offset behind the area.
func (a Area) End() region.Off { return a.Off + region.Off(a.Bytes()) }

// At is the offset of part i, which the caller has checked.
func (a Area) At(i uint64) region.Off { return a.Off + region.Off(i*a.Stride) }

// Layout is where everything is. It is a plain value.
type Layout struct {
	Config    Config // defaults filled in
	Machines  Area   // Peers() blocks
	Grants    Area   // one part
	Inboxes   Area   // Peers() rings
	Rings     Area   // Machines × Machines rings, [from·Machines + to]; those from a kernel to itself are unused
	HostRings Area   // 2 × Machines: 2k from kernel k to the host, 2k+1 back
	Logs      Area
	Slices    Area
}

// Peers is the number of machines and the host tool.
func (l *Layout) Peers() int { return l.Config.Machines + 1 }

// Host is the peer number of the host tool; Ckernel that of the control kernel.
func (l *Layout) Host() int { return l.Config.Machines }

// Ckernel is the peer number of the control kernel.
const Ckernel = 0

// PeerName is what people call a peer: ckernel, dkernel1, host.
func (l *Layout) PeerName(peer int) string {
	switch {
	case peer == Ckernel:
		return "ckernel"
	case peer == l.Host():
		return "host"
	}
	return fmt.Sprintf("dkernel%d", peer)
}

// GrantBytes is what the grant area takes for so many slices and machines.
func GrantBytes(slices uint64, machines int) uint64 {
	return GrantHeaderBytes + GrantEntryBytes*(slices+uint64(machines)*MaxCores)
}

func up(v, align uint64) uint64 { return (v + align - 1) &^ (align - 1) }

// Compute derives the layout.
func Compute(c Config) (Layout, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return Layout{}, err
	}
	l := Layout{Config: c}
	n, peers := uint64(c.Machines), uint64(c.Machines+1)
	next := uint64(SuperBytes)
	place := func(a *Area, stride, count uint64) {
		*a = Area{region.Off(next), stride, count}
		next = up(next+stride*count, PageSize)
	}
	place(&l.Machines, MachineBytes, peers)
	// Room for as many slices as the memory could have without anything else: the true number is not known yet.
	place(&l.Grants, up(GrantBytes(c.Size/SliceSize, c.Machines), PageSize), 1)
	place(&l.Inboxes, up(ring.MultiBytes(c.InboxSlots, InboxSlotSize), region.PadSize), peers)
	place(&l.Rings, ringStride(c.RingBytes), n*n)
	place(&l.HostRings, ringStride(c.HostRingBytes), 2*n)
	place(&l.Logs, c.LogBytes, uint64(c.Logs))
	start := up(next, SliceSize)
	if start+SliceSize > c.Size {
		return Layout{}, fmt.Errorf("%w: %d bytes for %d machines and %d logs of %d bytes, want at least %d: %d of control and one slice",
			ErrTooSmall, c.Size, c.Machines, c.Logs, c.LogBytes, start+SliceSize, start)
	}
	l.Slices = Area{region.Off(start), SliceSize, (c.Size - start) / SliceSize}
	return l, nil
}

func ringStride(data uint64) uint64 { return up(ring.Bytes(data), region.PadSize) }

// MinSize is the least Config.Size with which a rack of that shape has at least so many slices. c.Size is ignored.
func MinSize(c Config, slices uint64) (uint64, error) {
	for c.Size = (slices + 1) * SliceSize; ; {
		l, err := Compute(c)
		switch {
		case err == nil && l.Slices.Count >= slices:
			return c.Size, nil
		case err == nil:
			c.Size += (slices - l.Slices.Count) * SliceSize
		case errors.Is(err, ErrTooSmall):
			c.Size += SliceSize
		default:
			return 0, err
		}
	}
}

func (l *Layout) peer(p int) error {
	if p < 0 || p >= l.Peers() {
		return fmt.Errorf("%w: peer %d, this rack has 0 to %d (%d is the host)", ErrNoSuch, p, l.Host(), l.Host())
	}
	return nil
}

// Ring is where the ring from one peer to another is, and how much data it has.
func (l *Layout) Ring(from, to int) (off region.Off, data uint64, err error) {
	if err := l.peer(from); err != nil {
		return 0, 0, err
	}
	if err := l.peer(to); err != nil {
		return 0, 0, err
	}
	host := l.Host()
	switch {
	case from == to:
		return 0, 0, fmt.Errorf("%w: a ring from %s to itself", ErrNoSuch, l.PeerName(from))
	case to == host:
		return l.HostRings.At(uint64(2 * from)), l.Config.HostRingBytes, nil
	case from == host:
		return l.HostRings.At(uint64(2*to + 1)), l.Config.HostRingBytes, nil
	}
	return l.Rings.At(uint64(from*l.Config.Machines + to)), l.Config.RingBytes, nil
}

// Log is where log i is; its size is Config.LogBytes.
func (l *Layout) Log(i int) (region.Off, error) {
	if i < 0 || i >= l.Config.Logs {
		return 0, fmt.Errorf("%w: log %d, this rack has %d", ErrNoSuch, i, l.Config.Logs)
	}
	return l.Logs.At(uint64(i)), nil
}

// Slice is where slice i is.
func (l *Layout) Slice(i uint64) (region.Off, error) {
	if i >= l.Slices.Count {
		return 0, fmt.Errorf("%w: slice %d, this rack has %d", ErrNoSuch, i, l.Slices.Count)
	}
	return l.Slices.At(i), nil
}
