package layout

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"dinos/shmem/region"
	"dinos/shmem/ring"
)

// Dumper prints a part that another package knows: a log, the grant table.
type Dumper func(w io.Writer, part region.Region) error

// DumpOptions say what Dump cannot know by itself. The zero value is fine.
type DumpOptions struct {
	Config   *Config // use this layout, not the one in the superblock
	Log      Dumper  // prints a log; nil is hexadecimal
	Grants   Dumper  // prints the grant table; nil is hexadecimal
	Messages int     // of a ring; 0 is 16
}

// DumpParts are the parts that Dump knows.
func DumpParts() []string {
	return []string{"all", "map", "super", "machines", "machine:N", "rings", "ring:FROM:TO", "inboxes", "inbox:N", "grants",
		"logs", "log:N", "slice:N", "raw:OFFSET:LENGTH"}
}

// Dump prints a part of shared memory, live or dead, whatever is in it: nothing is trusted, and a damaged part is named and
// printed as far as it goes. Errors: ErrNoSuch for a part that does not exist, ErrUnformatted and the like if there is no layout
// to go by, and those of w.
func Dump(w io.Writer, r region.Region, part string, o DumpOptions) error {
	if o.Messages == 0 {
		o.Messages = 16
	}
	d := &dumper{w: w, r: r, o: o}
	name, rest, _ := strings.Cut(part, ":")
	var args []uint64
	if rest != "" {
		for _, s := range strings.Split(rest, ":") {
			v, err := strconv.ParseUint(s, 0, 63)
			if err != nil {
				return fmt.Errorf("%w: %q in %q, want a number", ErrNoSuch, s, part)
			}
			args = append(args, v)
		}
	}
	want := map[string]int{"machine": 1, "ring": 2, "inbox": 1, "log": 1, "slice": 1, "raw": 2, "all": 0, "map": 0, "super": 0,
		"machines": 0, "rings": 0, "inboxes": 0, "grants": 0, "logs": 0}
	if n, ok := want[name]; !ok || n != len(args) {
		return fmt.Errorf("%w: %q, want one of %s", ErrNoSuch, part, strings.Join(DumpParts(), ", "))
	}
	switch name {
	case "raw":
		return d.hex(region.Off(args[0]), args[1])
	case "super":
		d.super()
		return d.err
	}
	if err := d.layout(); err != nil {
		return err
	}
	if err := d.part(name, args); err != nil {
		return err
	}
	return d.err
}

type dumper struct {
	w   io.Writer
	r   region.Region
	l   Layout
	o   DumpOptions
	err error // of w
}

func (d *dumper) printf(format string, args ...any) {
	if d.err == nil {
		_, d.err = fmt.Fprintf(d.w, format, args...)
	}
}

func (d *dumper) load(off region.Off) uint64 {
	v, _ := d.r.LoadU64(off)
	return v
}

// layout takes the layout of the options, or that of the superblock, even if that is damaged but still makes sense.
func (d *dumper) layout() error {
	c := Config{}
	if d.o.Config != nil {
		c = *d.o.Config
	} else if _, err := Open(d.r); err != nil {
		d.printf("! %v\n", err)
		if c, err = stored(d.r); err != nil {
			return err
		}
	} else if c, err = stored(d.r); err != nil {
		return err
	}
	l, err := Compute(c)
	if err != nil {
		return fmt.Errorf("no layout to go by: %w", err)
	}
	d.l = l
	return nil
}

func (d *dumper) part(name string, args []uint64) error {
	index := func(what string, i uint64, n int) error {
		if i >= uint64(n) {
			return fmt.Errorf("%w: %s %d, this rack has %d", ErrNoSuch, what, i, n)
		}
		return nil
	}
	peers := d.l.Peers()
	switch name {
	case "machine":
		if err := index("machine", args[0], peers); err != nil {
			return err
		}
		d.machine(int(args[0]))
	case "ring":
		if err := index("peer", max(args[0], args[1]), peers); err != nil {
			return err
		}
		if args[0] == args[1] {
			return fmt.Errorf("%w: a ring from peer %d to itself", ErrNoSuch, args[0])
		}
		d.ring(int(args[0]), int(args[1]))
	case "inbox":
		if err := index("inbox", args[0], peers); err != nil {
			return err
		}
		d.inbox(int(args[0]))
	case "log":
		if err := index("log", args[0], d.l.Config.Logs); err != nil {
			return err
		}
		d.log(int(args[0]))
	case "slice":
		off, err := d.l.Slice(args[0])
		if err != nil {
			return err
		}
		return d.hex(off, SliceSize)
	case "all":
		for _, p := range []string{"super", "map", "machines", "grants", "inboxes", "rings", "logs"} {
			d.whole(p)
		}
	default:
		d.whole(name)
	}
	return nil
}

// whole prints a part that needs no number.
func (d *dumper) whole(name string) {
	switch name {
	case "super":
		d.super()
	case "map":
		d.areas()
	case "machines":
		for i := range d.l.Peers() {
			d.machine(i)
		}
	case "grants":
		d.sub("grants", d.l.Grants.Off, GrantBytes(d.l.Slices.Count, d.l.Config.Machines), d.o.Grants)
	case "inboxes":
		for i := range d.l.Peers() {
			d.inbox(i)
		}
	case "rings":
		for from := range d.l.Peers() {
			for to := range d.l.Peers() {
				if from != to {
					d.ring(from, to)
				}
			}
		}
	case "logs":
		for i := range d.l.Config.Logs {
			d.log(i)
		}
	}
}

func (d *dumper) super() {
	d.printf("superblock: magic %#x, version %d, rack generation %d\n", d.load(0), d.load(8), d.load(16))
	for _, f := range []struct {
		name string
		off  region.Off
	}{{"size", offSize}, {"machines", offMachines}, {"ring_bytes", offRingBytes}, {"host_ring_bytes", offHostRingBytes},
		{"inbox_slots", offInboxSlots}, {"logs", offLogs}, {"log_bytes", offLogBytes}} {
		d.printf("  %-16s %d\n", f.name, d.load(f.off))
	}
	d.printf("  %-16s %#x\n", "check", d.load(offCheck))
	d.printf("  %-16s %v\n", "state", RackState(d.load(OffRackState)))
	d.printf("  %-16s %d\n", "boot_time_ns", d.load(OffBootTime))
	d.printf("  %-16s %d\n", "epoch", d.load(OffRackEpoch))
	if _, err := Open(d.r); err != nil {
		d.printf("  ! %v\n", err)
	}
}

func (d *dumper) areas() {
	d.printf("map: %d bytes\n", d.l.Config.Size)
	for _, a := range []struct {
		name string
		a    Area
	}{{"super", Area{0, SuperBytes, 1}}, {"machines", d.l.Machines}, {"grants", d.l.Grants}, {"inboxes", d.l.Inboxes},
		{"rings", d.l.Rings}, {"host rings", d.l.HostRings}, {"logs", d.l.Logs}, {"slices", d.l.Slices}} {
		d.printf("  %-10s %#012x-%#012x %6d × %#x\n", a.name, uint64(a.a.Off), uint64(a.a.End()), a.a.Count, a.a.Stride)
	}
}

func (d *dumper) machine(slot int) {
	base := d.l.Machines.At(uint64(slot))
	d.printf("machine %d (%s) at %#x\n", slot, d.l.PeerName(slot), uint64(base))
	for _, f := range machineFields {
		v := d.load(base + f.off)
		switch f.format {
		case "%s":
			d.printf("  %-16s %v\n", f.name, State(v))
		case "%q":
			d.printf("  %-16s %q\n", f.name, rune(v&0xff))
		default:
			d.printf("  %-16s "+f.format+"\n", f.name, v)
		}
	}
	d.printf("  %-16s", "mailbox")
	for i := range region.Off(MailboxWords) {
		d.printf(" %#x", d.load(base+OffMailbox+8*i))
	}
	d.printf("\n")
	for s := range Stats {
		if v := d.load(base + OffStats + region.Off(8*s)); v != 0 {
			d.printf("  %-16v %d\n", s, v)
		}
	}
}

func (d *dumper) messages(w io.Writer, part region.Region) error {
	return ring.Dump(w, part, d.o.Messages)
}

func (d *dumper) ring(from, to int) {
	off, data, err := d.l.Ring(from, to)
	if err != nil {
		d.printf("! %v\n", err)
		return
	}
	d.sub(fmt.Sprintf("ring %s to %s", d.l.PeerName(from), d.l.PeerName(to)), off, ring.Bytes(data), d.messages)
}

func (d *dumper) inbox(i int) {
	d.sub("inbox of "+d.l.PeerName(i), d.l.Inboxes.At(uint64(i)), ring.MultiBytes(d.l.Config.InboxSlots, InboxSlotSize), d.messages)
}

func (d *dumper) log(i int) {
	d.sub(fmt.Sprintf("log %d", i), d.l.Logs.At(uint64(i)), d.l.Config.LogBytes, d.o.Log)
}

// sub prints a part by its own dumper, or its words.
func (d *dumper) sub(name string, off region.Off, n uint64, by Dumper) {
	if d.err != nil {
		return
	}
	d.printf("%s at %#x: ", name, uint64(off))
	part, err := d.r.Sub(off, n)
	switch {
	case err != nil:
		d.printf("! %v\n", err)
	case by != nil:
		d.err = by(d.w, part)
	default:
		d.printf("%d bytes\n", n)
		if err := d.hex(off, n); d.err == nil {
			d.err = err
		}
	}
}

// hex prints words, four a line; lines that repeat the one before are left out.
func (d *dumper) hex(off region.Off, n uint64) error {
	if off&7 != 0 || n&7 != 0 || uint64(off) > d.r.Len() || n > d.r.Len()-uint64(off) {
		return fmt.Errorf("%w: %d bytes at %#x, want multiples of 8 inside %#x", ErrNoSuch, n, uint64(off), d.r.Len())
	}
	var last []uint64
	skipped := false
	for end := off + region.Off(n); off < end && d.err == nil; {
		var line []uint64
		for o := off; o < end && len(line) < 4; o += 8 {
			line = append(line, d.load(o))
		}
		if slices.Equal(line, last) {
			if !skipped {
				d.printf("  *\n")
			}
			skipped = true
		} else {
			d.printf("  %#010x:", uint64(off))
			for _, v := range line {
				d.printf(" %016x", v)
			}
			d.printf("\n")
			skipped = false
		}
		last, off = line, off+region.Off(8*len(line))
	}
	return d.err
}
