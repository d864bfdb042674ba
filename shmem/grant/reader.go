package grant

import (
	"errors"
	"fmt"

	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// Reader reads a grant table that somebody else writes. It has no state of its own.
type Reader struct {
	shape
	r    region.Region
	rack uint64
}

// Open attaches to the grant table of a rack. The error is [ErrUnformatted].
func Open(k *layout.Rack) (*Reader, error) {
	r, err := attach(k)
	if err != nil {
		return nil, err
	}
	h, err := r.r.ReadHeader(0, Magic, Version)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnformatted, err)
	}
	if h.Generation != k.Generation {
		return nil, fmt.Errorf("%w: generation %d, the rack's is %d", ErrUnformatted, h.Generation, k.Generation)
	}
	for _, f := range []struct {
		what string
		off  region.Off
		want uint64
	}{{"slices", offSlices, r.slices}, {"machines", offMachines, uint64(r.machines)}} {
		got, err := r.r.LoadU64(f.off)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnformatted, err)
		}
		if got != f.want {
			return nil, fmt.Errorf("%w: %d %s, the rack has %d", ErrUnformatted, got, f.what, f.want)
		}
	}
	return r, nil
}

// attach takes the area and its shape from the rack, never from the table.
func attach(k *layout.Rack) (*Reader, error) {
	r, err := k.GrantRegion(k.Region)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnformatted, err)
	}
	return &Reader{shape{k.Slices.Count, k.Config.Machines}, r, k.Generation}, nil
}

// Read is what the table says of a unit, at one moment. Errors: [ErrNoSuch], [ErrDamaged], [ErrBusy].
func (r *Reader) Read(u Unit) (Entry, error) {
	i, err := r.index(u)
	if err != nil {
		return Entry{}, err
	}
	e, err := r.load(i)
	if err != nil {
		return Entry{}, err
	}
	return e.public(), nil
}

func (r *Reader) load(i uint64) (entry, error) {
	l, err := words(r.r, i)
	if err != nil {
		return entry{}, err
	}
	u := r.unit(i)
	e, check, ok := l.load()
	if !ok {
		return entry{}, fmt.Errorf("%w: %v", ErrBusy, u)
	}
	if want := e.check(r.rack, i); check != want {
		return entry{}, fmt.Errorf("%w: %v: check %#x, its bytes give %#x", ErrDamaged, u, check, want)
	}
	if p := r.problem(u, e); p != "" {
		return entry{}, fmt.Errorf("%w: %v: %s", ErrDamaged, u, p)
	}
	if v := l[wordSpare].Load(); v != 0 {
		return entry{}, fmt.Errorf("%w: %v: spare word %#x, want 0", ErrDamaged, u, v)
	}
	return e, nil
}

// Holds checks that a grant is in force and o's: what a dkernel asks before it uses what a message says it was given. Errors:
// those of Read, and [ErrStale].
func (r *Reader) Holds(n Name, o Owner) error {
	e, err := r.Read(n.Unit)
	if err != nil {
		return err
	}
	if e.State != Held || e.Grant != n.Grant || e.Owner != o {
		return fmt.Errorf("%w: %v for %v, the table says %v by %v (grant %#x)", ErrStale, n, o, e.State, e.Owner, e.Grant)
	}
	return nil
}

// Owned are the grants that o and its processes have (with a process in o, only that one's). A dkernel asks when the ckernel was
// restarted: what it finds here and never was told of got lost with an answer, and it releases it. Entries that cannot
// be read are left out; the error joins those of Read.
func (r *Reader) Owned(o Owner) ([]Name, error) {
	var names []Name
	var errs []error
	for i := range r.units() {
		e, err := r.load(i)
		switch {
		case err != nil:
			errs = append(errs, err)
		case e.state() == Held && e.peer() == o.Peer && e.generation == o.Generation && (o.Process == 0 || e.process == o.Process):
			names = append(names, Name{r.unit(i), e.version()})
		}
	}
	return names, errors.Join(errs...)
}
