package nrtest

import (
	"bytes"
	"errors"
	"fmt"

	"dinos/nr"
)

// Join adds a kernel that joins from a snapshot of donor, and then does ops.
func (w *World) Join(donor *Kernel, delay int, ops ...Op) (*Kernel, error) {
	k, err := w.open()
	if err != nil {
		return nil, err
	}
	var snapshot bytes.Buffer
	given := false
	w.working++ // the join itself is work: others keep the logs going
	donor.working++
	w.Go(donor.N, fmt.Sprintf("k%d.donate", donor.N), delay, func() error {
		defer func() { given = true }()
		defer func() { w.working--; donor.working-- }()
		for donor.state == away && w.busy() {
			w.WaitTurn()
		}
		if donor.rep == nil {
			return nil
		}
		id, err := donor.rep.Donate(&snapshot, nil)
		if err != nil {
			snapshot.Reset()
			if donor.state == up && !errors.Is(err, nr.ErrNoSlot) {
				return fmt.Errorf("kernel %d, donate: %w", donor.N, err)
			}
			return nil
		}
		k.id = id
		if k.state == left { // it has given up meanwhile
			return w.evict(w.Kernels[0].in, id, true)
		}
		return nil
	})
	w.Go(k.N, fmt.Sprintf("k%d.join", k.N), delay, func() error {
		defer func() {
			if k.state == away {
				k.state = left
			}
		}()
		for !given && !(donor.state == evicted && w.frozen[donor.N]) {
			w.WaitTurn()
		}
		if k.id == (nr.ID{}) {
			return nil
		}
		var err error
		if k.rep, err = k.in.Join(&snapshot); err != nil {
			k.rep = nil
			if errors.Is(err, nr.ErrEvicted) || errors.Is(err, nr.ErrStale) {
				return nil // taken for an orphan
			}
			return fmt.Errorf("kernel %d, join: %w", k.N, err)
		}
		k.state = up
		if w.orphaned[k.id] {
			k.state = doomed // taken for an orphan in the very moment it joined
		}
		return nil
	})
	w.Thread(k, delay, ops...)
	return k, nil
}

// JoinAfter is Join in a single thread, which brings the donor up to date between snapshot and joining: few
// schedules, among them those in which the donor does not hold the log any more when the joiner begins.
func (w *World) JoinAfter(donor *Kernel) {
	w.Go(donor.N, fmt.Sprintf("k%d.joinafter", donor.N), 0, func() error {
		var snapshot bytes.Buffer
		id, err := donor.rep.Donate(&snapshot, nil)
		if err != nil {
			return err
		}
		if err := donor.rep.Sync(); err != nil {
			return err
		}
		k, err := w.open()
		if err != nil {
			return err
		}
		k.id = id
		if k.rep, err = k.in.Join(&snapshot); err != nil {
			return err
		}
		k.state = up
		for first := true; first || w.busy(); first = false {
			if err := errors.Join(k.rep.Sync(), donor.rep.Sync()); err != nil {
				return err
			}
			w.WaitTurn()
		}
		return nil
	})
}

// Leave has kernel k leave when its threads are done.
func (w *World) Leave(k *Kernel) {
	w.Go(k.N, fmt.Sprintf("k%d.leave", k.N), 0, func() error {
		for k.working > 0 || k.state == away {
			w.WaitTurn()
		}
		if k.state == up {
			k.state = left
			return k.rep.Close()
		}
		return nil
	})
}
