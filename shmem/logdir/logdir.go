// Package logdir is the directory of the rack's operation logs: which structure of which process each log in shared memory serves, whether
// its maker has formatted it, and which machine's life each replica in it is of. It is what a restarted control kernel goes by, and how
// it finds the replicas of a dead machine without knowing what is replicated.
//
// # Layout
//
// A log's memory begins with a label of 1 KiB; what follows is the log's own. Words are 64 bits, offsets in bytes.
//
//	0x000  magic · version · generation (region.Header)   by the ckernel
//	0x018  process                                        by the ckernel
//	0x020  part                                           by the ckernel
//	0x028  maker, a machine                               by the ckernel
//	0x030  its life                                       by the ckernel
//	0x038  check of the above, the log's number and rack  by the ckernel
//	0x080  generation of the log once it is formatted     by its maker
//	0x100  64 owners: peer:8 | incarnation:16 | check:8 | life:32, one per replica slot, by the machine of the replica
//
// # Concurrency
//
// Each word has one writer at a time; any goroutine of any kernel may read. Nothing read is trusted but what a check fits.
package logdir

import (
	"errors"
	"fmt"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// Layout of a label.
const (
	Magic      = 0x31676f6c646e6964 // "dindlog1"
	Version    = 1
	LabelBytes = 0x400
	Slots      = 64 // replicas of a log

	offProcess = 0x18
	offReady   = 0x80
	offOwners  = 0x100
)

var _ [LabelBytes - offOwners - 8*Slots]byte

// ErrNoLabel: the log serves nothing, or its label is damaged.
var ErrNoLabel = errors.New("logdir: no label")

// Label says what a log serves.
type Label struct {
	Process    uint64 // 0 for the rack's own
	Part       uint32
	Generation uint64 // of this use of the log, not 0
	Maker      int    // the machine that is to format it
	Life       uint64 // and its generation
}

// Dir is the directory of a rack. It is a plain value.
type Dir struct{ k *layout.Rack }

// Of is the directory of k.
func Of(k *layout.Rack) Dir { return Dir{k} }

// Count is the number of logs.
func (d Dir) Count() int { return int(d.k.Logs.Count) }

func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15 // Fibonacci hashing (Knuth, TAOCP 3, 6.4)
	return h ^ h>>29
}

func (d Dir) check(i int, l Label) uint64 {
	h := mix(0, d.k.Generation)
	for _, v := range []uint64{uint64(i), l.Process, uint64(l.Part), l.Generation, uint64(l.Maker), l.Life} {
		h = mix(h, v)
	}
	return h
}

// Read is the label of log i. The error wraps ErrNoLabel or layout.ErrNoSuch.
func (d Dir) Read(i int) (Label, error) {
	r, err := d.k.LogRegion(d.k.Region, i)
	if err != nil {
		return Label{}, err
	}
	h, err := r.ReadHeader(0, Magic, Version)
	if err != nil {
		return Label{}, fmt.Errorf("%w: log %d: %w", ErrNoLabel, i, err)
	}
	var w [5]uint64
	for k := range w {
		if w[k], err = r.LoadU64(offProcess + region.Off(8*k)); err != nil {
			return Label{}, fmt.Errorf("%w: log %d: %w", ErrNoLabel, i, err)
		}
	}
	l := Label{w[0], uint32(w[1]), h.Generation, int(uint8(w[2])), w[3]}
	if uint64(l.Part) != w[1] || uint64(l.Maker) != w[2] || l.Generation == 0 || w[4] != d.check(i, l) {
		return Label{}, fmt.Errorf("%w: log %d: %+v does not fit its check", ErrNoLabel, i, l)
	}
	return l, nil
}

// Write labels log i anew: it is not formatted, and no replica is in it. Only the ckernel does that, and nobody may use the log.
func (d Dir) Write(i int, l Label) error {
	r, err := d.k.LogRegion(d.k.Region, i)
	if err != nil {
		return err
	}
	if l.Generation == 0 {
		return fmt.Errorf("%w: generation 0 for log %d, want another", ErrNoLabel, i)
	}
	if err := r.InvalidateHeader(0); err != nil {
		return err
	}
	if err := r.Zero(8, LabelBytes-8); err != nil {
		return err
	}
	// What the log's own memory held was another life's.
	if err := r.InvalidateHeader(LabelBytes); err != nil {
		return err
	}
	for k, v := range []uint64{l.Process, uint64(l.Part), uint64(l.Maker), l.Life, d.check(i, l)} {
		if err := r.StoreU64(offProcess+region.Off(8*k), v); err != nil {
			return err
		}
	}
	return r.WriteHeader(0, region.Header{Magic: Magic, Version: Version, Generation: l.Generation})
}

// Clear ends the use of log i.
func (d Dir) Clear(i int) error {
	r, err := d.k.LogRegion(d.k.Region, i)
	if err != nil {
		return err
	}
	return r.InvalidateHeader(0)
}

// Memory is the log's own memory, as large as the configuration says less the label.
func (d Dir) Memory(i int) ([]byte, error) {
	r, err := d.k.LogRegion(d.k.Region, i)
	if err != nil {
		return nil, err
	}
	return r.Bytes(LabelBytes, r.Len()-LabelBytes)
}

// SetReady is the maker's word that the log of that generation is formatted; Ready reports whether it was given.
func (d Dir) SetReady(i int, generation uint64) error {
	r, err := d.k.LogRegion(d.k.Region, i)
	if err != nil {
		return err
	}
	return r.StoreU64(offReady, generation)
}

// Ready reports whether the log of that generation is formatted.
func (d Dir) Ready(i int, generation uint64) bool {
	r, err := d.k.LogRegion(d.k.Region, i)
	if err != nil {
		return false
	}
	v, err := r.LoadU64(offReady)
	return err == nil && v == generation
}

func owner(slot, incarnation, peer int, life uint64) uint64 {
	w := uint64(uint8(peer)) | uint64(uint16(incarnation))<<8 | life<<32
	return w | mix(w, uint64(slot)+1)>>56<<24
}

// SetOwner says that the replica in a slot of log i, in that incarnation of the slot, is of a life of a machine, the caller's.
func (d Dir) SetOwner(i, slot, incarnation, peer int, life uint64) error {
	r, err := d.k.LogRegion(d.k.Region, i)
	if err != nil {
		return err
	}
	if slot < 0 || slot >= Slots {
		return fmt.Errorf("%w: slot %d of log %d, want 0 to %d", layout.ErrNoSuch, slot, i, Slots-1)
	}
	return r.StoreU64(offOwners+region.Off(8*slot), owner(slot, incarnation, peer, life))
}

// Owner is the machine and (modulo 2^32) the life whose replica is in a slot in that incarnation; not ok if nobody has said so.
func (d Dir) Owner(i, slot, incarnation int) (peer int, life uint32, ok bool) {
	r, err := d.k.LogRegion(d.k.Region, i)
	if err != nil || slot < 0 || slot >= Slots {
		return 0, 0, false
	}
	w, err := r.LoadU64(offOwners + region.Off(8*slot))
	if err != nil || w == 0 {
		return 0, 0, false
	}
	peer, life = int(uint8(w)), uint32(w>>32)
	return peer, life, w == owner(slot, incarnation, peer, uint64(life)) && peer < d.k.Config.Machines
}
