package ring

import (
	"fmt"
	"io"

	"dinos/shmem/region"
)

// Dump prints the ring of either kind at the start of r, live or dead, without trusting any of it. It prints at most max
// messages, the oldest first. The error is w's.
func Dump(w io.Writer, r region.Region, max int) error {
	p := &printer{w: w}
	magic, err := r.LoadU64(0)
	if err != nil {
		p.printf("no ring: %v\n", err)
		return p.err
	}
	switch magic {
	case Magic:
		dumpSingle(p, r, max)
	case MultiMagic:
		dumpMulti(p, r, max)
	default:
		p.printf("no ring: magic %#x, want %#x or %#x\n", magic, uint64(Magic), uint64(MultiMagic))
	}
	return p.err
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// load is the word at off, 0 outside of r; Dump only loads what it checked or prints.
func load(r region.Region, off region.Off) uint64 {
	v, _ := r.LoadU64(off)
	return v
}

func dumpControl(p *printer, r region.Region, kind string) {
	p.printf("%s ring: version %d, generation %d, size %d, slot size %d\n", kind,
		uint32(load(r, 8)), load(r, 16), load(r, offSize), load(r, offSlotSize))
	p.printf("  tail %#x head %#x tx sleep %d rx sleep %d\n", load(r, offTail), load(r, offHead), load(r, offTxSleep), load(r, offRxSleep))
}

func dumpSingle(p *printer, r region.Region, max int) {
	dumpControl(p, r, "one-sender")
	size, gen := load(r, offSize), load(r, 16)
	if err := checkData(size); err != nil || r.Len() < Bytes(size) {
		p.printf("  bad size %d in %d bytes of memory\n", size, r.Len())
		return
	}
	tail, head, limit := load(r, offTail), load(r, offHead), size/8
	for _, i := range []struct {
		name string
		v    uint64
	}{{"tail", tail}, {"head", head}} {
		if i.v>>posBits != gen&0xffff {
			p.printf("  %s is of generation %d\n", i.name, i.v>>posBits)
			return
		}
	}
	pos, left := head&posMask, (tail-head)&posMask
	if left > limit {
		p.printf("  bad indices: %d words between head and tail, at most %d are possible\n", left, limit)
		return
	}
	p.printf("  %d of %d words taken\n", left, limit)
	for ; left > 0 && max > 0; max-- {
		w := load(r, offData+region.Off(pos%limit*8))
		n := words(int(uint32(w)))
		if w&^0xffffffff != mark(gen, pos) || n > left {
			p.printf("  %#x: bad message header %#x\n", pos, w)
			return
		}
		p.printf("  %#x: %d bytes", pos, uint32(w))
		for i := uint64(1); i < n && i <= 4; i++ {
			p.printf(" %016x", load(r, offData+region.Off((pos+i)%limit*8)))
		}
		p.printf("\n")
		pos, left = pos+n, left-n
	}
	if left > 0 {
		p.printf("  … %d words more\n", left)
	}
}

func dumpMulti(p *printer, r region.Region, max int) {
	dumpControl(p, r, "many-sender")
	slots, size := load(r, offSize), load(r, offSlotSize)
	if checkSlots(slots, size) != nil || r.Len() < MultiBytes(slots, size) {
		p.printf("  bad size %d × %d in %d bytes of memory\n", slots, size, r.Len())
		return
	}
	for pos, end := load(r, offHead), load(r, offHead)+slots; pos != end && max > 0; pos++ {
		off := offData + region.Off(pos&(slots-1)*size)
		w := load(r, off)
		if slotState(w) == slotFree {
			continue
		}
		max--
		state := "bad state"
		switch slotState(w) {
		case slotClaimed:
			state = "claimed"
		case slotReady:
			state = "ready"
		}
		p.printf("  %d: %s by %v, lap %d, %d bytes, %016x %016x\n", pos, state, slotSender(w), slotLap(w), load(r, off+8),
			load(r, off+16), load(r, off+24))
	}
}
