package grant

import (
	"fmt"
	"io"
	"strings"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// Kind of a violation.
type Kind uint8

// The kinds.
const (
	BadHeader Kind = iota + 1 // the header says something else than the rack
	BadEntry                  // an entry's bytes make no sense
	Differs                   // an entry makes sense, but is not what the ckernel says
	NoMember                  // the owner is not a living member
	MixedLife                 // cores of one machine belong to different lives of it
	IsLost                    // a unit that nobody can be given
	BadView                   // the ckernel's own books do not add up
	kinds
)

func (k Kind) String() string {
	if k > 0 && k < kinds {
		return [...]string{"header", "damaged", "differs", "owner is no member", "mixed lives", "lost", "view"}[k-1]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Violation is one thing that is wrong.
type Violation struct {
	Kind Kind
	Unit Unit // not of BadHeader and BadView
	Text string
}

func (v Violation) String() string { return fmt.Sprintf("%v: %s", v.Kind, v.Text) }

// Report is the result of an audit. Units that are damaged are in none of the counts but Slices.
type Report struct {
	Slices, Cores   uint64 // cores that are not absent
	ByState         [states]uint64
	FreeSlices      uint64
	FreeCores       uint64
	Violations      []Violation
	HeldByDkernel   uint64 // units without a process
	HeldByProcesses uint64
}

// Err is nil if nothing is wrong, else an error that names the first violations and their number.
func (p *Report) Err() error {
	n := len(p.Violations)
	if n == 0 {
		return nil
	}
	var b strings.Builder
	for _, v := range p.Violations[:min(n, 8)] {
		fmt.Fprintf(&b, "; %v", v)
	}
	if n > 8 {
		fmt.Fprintf(&b, "; and %d more", n-8)
	}
	return fmt.Errorf("grant: audit found %d violations%s", n, b.String())
}

func (p *Report) add(k Kind, u Unit, format string, args ...any) {
	p.Violations = append(p.Violations, Violation{k, u, fmt.Sprintf(format, args...)})
}

// Lives says which generation of a peer is a member now; not ok if none is.
type Lives func(peer int) (generation uint64, ok bool)

// Audit checks every unit of the shared table and reports every violation. lives may be nil: then owners are not compared with
// the membership. It may run beside the ckernel, then units that change meanwhile are counted as of either side.
func (r *Reader) Audit(lives Lives) *Report {
	p := &Report{Slices: r.slices}
	r.auditHeader(p)
	coreLife := make([]uint64, r.machines)
	for i := range r.units() {
		u := r.unit(i)
		e, err := r.load(i)
		if err != nil {
			p.add(BadEntry, u, "%v", err)
			continue
		}
		p.count(u, e)
		if u.Core && e.generation != 0 {
			switch life := &coreLife[u.Machine]; *life {
			case 0:
				*life = e.generation
			case e.generation:
			default:
				p.add(MixedLife, u, "%v is of life %d, others of its machine of life %d", u, e.generation, *life)
			}
		}
		if e.state() == Lost {
			p.add(IsLost, u, "%v is lost, want it settled", u)
		}
		if e.generation != 0 && lives != nil {
			if gen, ok := lives(e.peer()); !ok {
				p.add(NoMember, u, "%v is %v, that machine is no member", u, e)
			} else if gen != e.generation {
				p.add(NoMember, u, "%v is %v, the member is life %d", u, e, gen)
			}
		}
	}
	return p
}

func (p *Report) count(u Unit, e entry) {
	p.ByState[e.state()]++
	if u.Core && e.state() != Absent {
		p.Cores++
	}
	switch {
	case e.state() == Free && u.Core:
		p.FreeCores++
	case e.state() == Free:
		p.FreeSlices++
	case e.state() == Held && e.process == 0:
		p.HeldByDkernel++
	case e.state() == Held:
		p.HeldByProcesses++
	}
}

func (r *Reader) auditHeader(p *Report) {
	if h, err := r.r.ReadHeader(0, Magic, Version); err != nil {
		p.add(BadHeader, Unit{}, "%v", err)
	} else if h.Generation != r.rack {
		p.add(BadHeader, Unit{}, "rack generation %d, want %d", h.Generation, r.rack)
	}
	for _, f := range []struct {
		what string
		off  region.Off
		want uint64
	}{{"slices", offSlices, r.slices}, {"machines", offMachines, uint64(r.machines)}} {
		if got, err := r.r.LoadU64(f.off); err != nil || got != f.want {
			p.add(BadHeader, Unit{}, "%d %s, want %d", got, f.what, f.want)
		}
	}
	if word, err := r.r.LoadU64(offWriter); err != nil {
		p.add(BadHeader, Unit{}, "%v", err)
	} else if _, ok := writerOf(r.rack, word); !ok {
		p.add(BadHeader, Unit{}, "writer word %#x is damaged", word)
	}
}

// Audit is [Reader.Audit], and compares the shared table with the view, and the view's books with each other.
func (t *Table) Audit(lives Lives) *Report {
	p := t.Reader.Audit(lives)
	if err := t.own(); err != nil {
		p.add(BadHeader, Unit{}, "%v", err)
	}
	for i := range t.units() {
		if v, bad := t.compare(i); bad && v.Kind == Differs {
			p.Violations = append(p.Violations, v)
		}
	}
	t.auditBooks(p)
	return p
}

// compare says how entry i in shared memory differs from the view.
func (t *Table) compare(i uint64) (Violation, bool) {
	u := t.unit(i)
	e, err := t.load(i)
	switch {
	case err != nil:
		return Violation{BadEntry, u, err.Error()}, true
	case e != t.view[i]:
		return Violation{Differs, u, fmt.Sprintf("%v is %v in shared memory, the ckernel says %v", u, e, t.view[i])}, true
	}
	return Violation{}, false
}

func (t *Table) compareHeader() []Violation {
	p := &Report{}
	t.auditHeader(p)
	if len(p.Violations) == 0 {
		if err := t.own(); err != nil {
			p.add(BadHeader, Unit{}, "%v", err)
		}
	}
	return p.Violations
}

// auditBooks recounts the view.
func (t *Table) auditBooks(p *Report) {
	var free, dirty uint64
	held, lost := 0, 0
	for i := range t.units() {
		u, e := t.unit(i), t.view[i]
		s := e.state()
		if q := t.problem(u, e); q != "" {
			p.add(BadView, Unit{}, "view of %v: %s", u, q)
		}
		if u.Core {
			if in := t.cores[u.Machine]>>u.Index&1 != 0; in != (s == Free) {
				p.add(BadView, Unit{}, "%v is %v; it is in the set of free cores: %v", u, s, in)
			}
		} else {
			if t.free.has(i) != (s == Free) || t.dirty.has(i) != (s == Dirty) {
				p.add(BadView, Unit{}, "%v is %v; it is in the set of free slices: %v, of dirty slices: %v", u, s, t.free.has(i), t.dirty.has(i))
			}
			free += one(s == Free)
			dirty += one(s == Dirty)
		}
		held += int(one(s == Held))
		lost += int(one(s == Lost))
	}
	if free != t.free.n || dirty != t.dirty.n || held != t.held || lost != t.lost {
		p.add(BadView, Unit{}, "counts free %d, dirty %d, held %d, lost %d; there are %d, %d, %d, %d",
			t.free.n, t.dirty.n, t.held, t.lost, free, dirty, held, lost)
	}
}

func one(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// Dump prints a grant table, whatever is in it; units in a row with the same state and owner share a line. It is a layout.Dumper.
func Dump(w io.Writer, part region.Region) error {
	var h [offWriter/8 + 1]uint64
	for i := range h {
		v, err := part.LoadU64(region.Off(8 * i))
		if err != nil {
			_, err = fmt.Fprintf(w, "! %v\n", err)
			return err
		}
		h[i] = v
	}
	d := &Reader{r: part, rack: h[2]}
	d.slices, d.machines = h[offSlices/8], int(min(h[offMachines/8], layout.MaxMachines+1))
	writer, ok := writerOf(d.rack, h[offWriter/8])
	if _, err := fmt.Fprintf(w, "grant table: magic %#x, version %d, rack generation %d, writer %d (sound: %v), %d slices, %d machines\n",
		h[0], h[1], h[2], writer, ok, d.slices, h[offMachines/8]); err != nil {
		return err
	}
	// The sizes are the table's own word, which is as good as any other byte of it.
	if d.slices > layout.MaxSize/layout.SliceSize || d.machines > layout.MaxMachines || layout.GrantBytes(d.slices, d.machines) > part.Len() {
		_, err := fmt.Fprintf(w, "  ! that does not fit into %d bytes\n", part.Len())
		return err
	}
	var first Unit
	text, n := "", 0
	flush := func() error {
		if n == 0 || text == "" {
			return nil
		}
		_, err := fmt.Fprintf(w, "  %-24v × %-6d %s\n", first, n, text)
		return err
	}
	for i := range d.units() {
		u := d.unit(i)
		now := ""
		switch e, err := d.load(i); {
		case err != nil:
			now = "! " + err.Error()
		case e.state() != Absent:
			now = e.state().String()
			if e.generation != 0 {
				now += ", " + e.owner().String()
			}
		}
		if n > 0 && now == text && u.Core == first.Core && u.Machine == first.Machine {
			n++
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		first, text, n = u, now, 1
	}
	return flush()
}
