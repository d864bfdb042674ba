package layout

import (
	"fmt"
	"sync/atomic"

	"dinos/shmem/region"
	"dinos/shmem/ring"
)

// Offsets in the superblock, behind its region.Header, whose generation is the rack's.
const (
	offSize = region.HeaderSize + 8*iota
	offMachines
	offRingBytes
	offHostRingBytes
	offInboxSlots
	offLogs
	offLogBytes
	offCheck // of everything above

	// OffRackState is written by the host tool: a RackState.
	OffRackState = 0x80
	// OffBootTime is written by the host tool: its wall clock at format, nanoseconds since 1970.
	OffBootTime = 0x88
	// OffRackEpoch is written by the ckernel: the number of membership changes.
	OffRackEpoch = 0x100
	// OffRackTSC is written by the ckernel: the peer whose time stamp counter is the rack's clock.
	OffRackTSC = 0x108
)

var _ [OffRackState - offCheck - 8]byte

// RackState says what the host tool does with the rack.
type RackState uint64

// The states of a rack.
const (
	RackBooting RackState = iota + 1
	RackUp
	RackStopping // kernels end in order
)

func (s RackState) String() string {
	if s >= RackBooting && s <= RackStopping {
		return [...]string{"booting", "up", "stopping"}[s-RackBooting]
	}
	return fmt.Sprintf("state(%d)", uint64(s))
}

// Rack is opened shared memory. It is a plain value but for the words it points to.
type Rack struct {
	Layout
	Region     region.Region
	Generation uint64

	State, BootTime, Epoch, TSC *atomic.Uint64
}

// checksum is FNV-1a (Fowler, Noll, Vo) over the words [8, offCheck) of the superblock, by whole words.
func checksum(r region.Region) (uint64, error) {
	h := uint64(14695981039346656037)
	for off := region.Off(8); off < offCheck; off += 8 {
		v, err := r.LoadU64(off)
		if err != nil {
			return 0, err
		}
		h = (h ^ v) * 1099511628211
		h ^= h >> 29 // words, not bytes: let high bits come down
	}
	return h, nil
}

// Format makes an empty rack in r and opens it. generation must not be 0 and must differ from that of any rack that was in
// this memory before. Slices and logs are not touched (they are made by their owners); all else is made new. The
// superblock's magic comes last, so a rack is whole or not there.
func Format(r region.Region, c Config, generation uint64) (*Rack, error) {
	if generation == 0 {
		return nil, fmt.Errorf("%w: rack generation 0, want another", ErrConfig)
	}
	if c.Size == 0 {
		c.Size = r.Len() &^ (SliceSize - 1)
	}
	l, err := Compute(c)
	if err != nil {
		return nil, err
	}
	if l.Config.Size > r.Len() {
		return nil, fmt.Errorf("%w: %d bytes, the configuration says %d", ErrTooSmall, r.Len(), l.Config.Size)
	}
	if err := r.InvalidateHeader(0); err != nil {
		return nil, err
	}
	// Rings are made below; their data needs no clearing.
	for _, part := range []struct{ from, to region.Off }{{8, SuperBytes}, {l.Machines.Off, l.Inboxes.Off}} {
		if err := r.Zero(part.from, uint64(part.to-part.from)); err != nil {
			return nil, err
		}
	}
	for i := range l.Logs.Count {
		if err := r.InvalidateHeader(l.Logs.At(i)); err != nil {
			return nil, err
		}
	}
	if err := l.formatRings(r, generation); err != nil {
		return nil, err
	}
	for off, v := range map[region.Off]uint64{offSize: l.Config.Size, offMachines: uint64(l.Config.Machines),
		offRingBytes: l.Config.RingBytes, offHostRingBytes: l.Config.HostRingBytes, offInboxSlots: l.Config.InboxSlots,
		offLogs: uint64(l.Config.Logs), offLogBytes: l.Config.LogBytes, OffRackState: uint64(RackBooting),
		8: Version, 16: generation} {
		if err := r.StoreU64(off, v); err != nil {
			return nil, err
		}
	}
	sum, err := checksum(r)
	if err != nil {
		return nil, err
	}
	if err := r.StoreU64(offCheck, sum); err != nil {
		return nil, err
	}
	if err := r.WriteHeader(0, region.Header{Magic: Magic, Version: Version, Generation: generation}); err != nil {
		return nil, err
	}
	return Open(r)
}

func (l *Layout) formatRings(r region.Region, gen uint64) error {
	for from := range l.Peers() {
		for to := range l.Peers() {
			if from == to {
				continue
			}
			sub, data, err := l.RingRegion(r, from, to)
			if err != nil {
				return err
			}
			if err := ring.Format(sub, data, gen); err != nil {
				return err
			}
		}
		sub, err := l.InboxRegion(r, from)
		if err != nil {
			return err
		}
		if err := ring.FormatMulti(sub, l.Config.InboxSlots, InboxSlotSize, gen); err != nil {
			return err
		}
	}
	return nil
}

// RingRegion is the memory of the ring from one peer to another, and the bytes of its data, for the functions of package ring.
func (l *Layout) RingRegion(r region.Region, from, to int) (region.Region, uint64, error) {
	off, data, err := l.Ring(from, to)
	if err != nil {
		return region.Region{}, 0, err
	}
	sub, err := r.Sub(off, ring.Bytes(data))
	return sub, data, err
}

// InboxRegion is the memory of a peer's inbox: Config.InboxSlots slots of InboxSlotSize bytes.
func (l *Layout) InboxRegion(r region.Region, peer int) (region.Region, error) {
	if err := l.peer(peer); err != nil {
		return region.Region{}, err
	}
	return r.Sub(l.Inboxes.At(uint64(peer)), ring.MultiBytes(l.Config.InboxSlots, InboxSlotSize))
}

// LogRegion is the memory of log i.
func (l *Layout) LogRegion(r region.Region, i int) (region.Region, error) {
	off, err := l.Log(i)
	if err != nil {
		return region.Region{}, err
	}
	return r.Sub(off, l.Config.LogBytes)
}

// GrantRegion is the memory of the grant table: GrantHeaderBytes, then Slices.Count entries of GrantEntryBytes, then
// Machines·MaxCores of them.
func (l *Layout) GrantRegion(r region.Region) (region.Region, error) {
	return r.Sub(l.Grants.Off, GrantBytes(l.Slices.Count, l.Config.Machines))
}

// stored reads the configuration in the superblock, unchecked.
func stored(r region.Region) (Config, error) {
	var w [7]uint64
	for i := range w {
		var err error
		if w[i], err = r.LoadU64(offSize + region.Off(8*i)); err != nil {
			return Config{}, fmt.Errorf("%w: %d bytes, a superblock takes %d", ErrTooSmall, r.Len(), SuperBytes)
		}
	}
	c := Config{Size: w[0], Machines: int(min(w[1], 1<<30)), RingBytes: w[2], HostRingBytes: w[3], InboxSlots: w[4],
		Logs: int(min(w[5], 1<<30)), LogBytes: w[6]}
	if c.Logs == 0 {
		c.Logs = NoLogs
	}
	return c, nil
}

// Open checks the superblock of r and derives the layout from it.
func Open(r region.Region) (*Rack, error) {
	if r.Len() < SuperBytes {
		return nil, fmt.Errorf("%w: %d bytes, a superblock takes %d", ErrTooSmall, r.Len(), SuperBytes)
	}
	magic, err := r.LoadU64(0)
	if err != nil {
		return nil, err
	}
	if magic != Magic {
		return nil, fmt.Errorf("%w: magic %#x, want %#x (was it formatted?)", ErrUnformatted, magic, uint64(Magic))
	}
	version, err := r.LoadU64(8)
	if err != nil {
		return nil, err
	}
	if version != Version {
		return nil, fmt.Errorf("%w: %d in memory, this build has %d; use the same build for the whole rack", ErrVersion, version, Version)
	}
	h, err := r.ReadHeader(0, Magic, Version)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	sum, err := checksum(r)
	if err != nil {
		return nil, err
	}
	if want, err := r.LoadU64(offCheck); err != nil || want != sum {
		return nil, fmt.Errorf("%w: checksum %#x, want %#x", ErrCorrupt, want, sum)
	}
	c, err := stored(r)
	if err != nil {
		return nil, err
	}
	if c.Size > r.Len() {
		return nil, fmt.Errorf("%w: %d bytes, the rack was formatted for %d", ErrTooSmall, r.Len(), c.Size)
	}
	l, err := Compute(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	k := &Rack{Layout: l, Region: r, Generation: h.Generation}
	for off, p := range map[region.Off]**atomic.Uint64{OffRackState: &k.State, OffBootTime: &k.BootTime,
		OffRackEpoch: &k.Epoch, OffRackTSC: &k.TSC} {
		if *p, err = r.U64(off); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Restate writes the words of the superblock that never change once more, where they are not as they were when the rack was opened, and
// reports whether there were any: damage there keeps machines from being started. Only the ckernel calls it.
func (k *Rack) Restate() (damaged bool, err error) {
	put := func(off region.Off, v uint64) {
		if old, lerr := k.Region.LoadU64(off); err == nil && (lerr != nil || old != v) {
			damaged = true
			err = k.Region.StoreU64(off, v)
		}
	}
	c := &k.Config
	for off, v := range map[region.Off]uint64{0: Magic, 8: Version, 16: k.Generation, offSize: c.Size, offMachines: uint64(c.Machines),
		offRingBytes: c.RingBytes, offHostRingBytes: c.HostRingBytes, offInboxSlots: c.InboxSlots, offLogs: uint64(c.Logs), offLogBytes: c.LogBytes} {
		put(off, v)
	}
	if err != nil {
		return damaged, err
	}
	sum, err := checksum(k.Region)
	if err != nil {
		return damaged, err
	}
	put(offCheck, sum)
	return damaged, err
}
