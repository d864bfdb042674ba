package nrtest

import (
	"errors"
	"fmt"
	"slices"

	"dinos/nr"
	"dinos/nr/oplog"
	"dinos/shmem/region"
)

// World is a rack of virtual kernels that share one slab. Build it, add threads, and Finish it.
type World struct {
	*Sched
	History
	Name    string
	Logs    int
	Kernels []*Kernel

	cfg      nr.Config[Op, uint32]
	mem      []byte
	nextID   uint32
	owner    map[uint32]*Kernel // of op IDs
	seen     map[uint32]int64   // when an op was published
	orphaned map[nr.ID]bool
	clients  int
	working  int // threads with ops that have not ended
	fates    int // evictions that have not ended
	settled  int // turns of waits outside the schedule
	checks   []func() error
}

// Kernel is a virtual kernel with one replica.
type Kernel struct {
	N       int
	in      *nr.Instance[Op, uint32]
	rep     *nr.Replica[Op, uint32]
	id      nr.ID
	banks   []*Bank
	working int
	syncing bool
	state   kernelState
	end     int64 // when its eviction was complete
}

type kernelState uint8

const (
	away kernelState = iota // not there yet
	up
	doomed  // its eviction has begun
	evicted // its eviction is complete
	left
)

// Shape is the geometry of a world.
type Shape struct {
	Logs     int
	Entries  uint64
	Replicas int
	Patience int
	Threads  int
}

// NewWorld makes a world whose schedule c chooses.
func NewWorld(name string, c Chooser, sh Shape) (*World, error) {
	w := &World{Sched: NewSched(c), Name: name, Logs: sh.Logs, owner: map[uint32]*Kernel{}, orphaned: map[nr.ID]bool{},
		seen: map[uint32]int64{}}
	w.cfg = BankConfig(sh.Logs)
	w.cfg.Entries, w.cfg.Replicas, w.cfg.Patience, w.cfg.Threads = sh.Entries, sh.Replicas, sh.Patience, sh.Threads
	w.After = w.published
	w.cfg.Probe, w.cfg.Waiter = w.Probe, waiter{w}
	size, err := w.cfg.Size()
	if err != nil {
		return nil, err
	}
	w.mem = region.Slab(int(size))
	return w, nr.Format(w.mem, w.cfg)
}

type waiter struct{ w *World }

// Wait implements nr.Waiter: a turn of the schedule, or, when the schedule is over, a bounded patience.
func (wt waiter) Wait(nr.Wait) bool {
	if wt.w.current == nil {
		wt.w.settled++
		return wt.w.settled < 100_000
	}
	wt.w.WaitTurn()
	return true
}

// pause is a scheduling point inside the structure, where steps inside a kernel count.
func (w *World) pause() {
	if w.Skip == nil {
		w.Yield()
	}
}

// open gives kernel k its access to the slab.
func (w *World) open() (*Kernel, error) {
	k := &Kernel{N: len(w.Kernels), banks: make([]*Bank, w.Logs)}
	w.Kernels = append(w.Kernels, k)
	cfg := w.cfg
	cfg.New = func(log int) nr.Structure[Op, uint32] {
		k.banks[log] = &Bank{pause: w.pause}
		return k.banks[log]
	}
	var err error
	k.in, err = nr.Open(w.mem, cfg)
	return k, err
}

// Boot adds a kernel whose replica follows the logs from their beginning.
func (w *World) Boot() (*Kernel, error) {
	k, err := w.open()
	if err != nil {
		return nil, err
	}
	if k.rep, err = k.in.First(); err != nil {
		return nil, err
	}
	k.id, k.state = k.rep.ID(), up
	return k, nil
}

// Thread adds a thread to kernel k that does ops one after the other, as soon as k is up.
func (w *World) Thread(k *Kernel, delay int, ops ...Op) {
	client := w.clients
	w.clients++
	w.working++
	k.working++
	w.Go(k.N, fmt.Sprintf("k%d.t%d", k.N, client), delay, func() error {
		err := w.work(k, client, ops)
		w.working--
		k.working--
		return err
	})
}

func (w *World) work(k *Kernel, client int, ops []Op) error {
	for k.state == away {
		w.WaitTurn()
	}
	if k.rep == nil {
		return nil // it never came
	}
	h, err := k.rep.Register()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, op := range ops {
		w.nextID++
		op.ID = w.nextID
		w.owner[op.ID] = k
		late := k.state == evicted || k.state == left
		w.Clock++
		call := w.Call(client, op, w.Clock)
		do := h.Apply
		if op.Kind == Get || op.Kind == Sum {
			do = h.Read
		}
		out, err := do(op)
		w.Clock++
		if err != nil {
			if k.state != up && (errors.Is(err, nr.ErrEvicted) || k.state == left) {
				return nil
			}
			return fmt.Errorf("kernel %d, %v: %w", k.N, op, err)
		}
		if late {
			return fmt.Errorf("kernel %d, %v: succeeded after the kernel's eviction", k.N, op)
		}
		w.Return(call, out, w.Clock)
	}
	return nil
}

// Prefill has the booted kernels apply n ops each in turn, before the schedule begins, so that the rings are somewhere in their laps.
func (w *World) Prefill(n int) error {
	for i := range n * len(w.Kernels) {
		k := w.Kernels[i%len(w.Kernels)]
		if err := w.work(k, w.clients, []Op{{Kind: Add, Key: uint8(i), Arg: 1}}); err != nil {
			return err
		}
		w.published(k.N, oplog.PtPublish)
		for _, k := range w.Kernels {
			if err := k.rep.Sync(); err != nil {
				return err
			}
		}
	}
	w.clients++
	return nil
}

// Depart has kernel k leave before the schedule begins.
func (w *World) Depart(k *Kernel) error {
	k.state = left
	return k.rep.Close()
}

// Syncer adds a thread that keeps k's replica up to date while others work.
func (w *World) Syncer(k *Kernel, delay int) {
	w.Go(k.N, fmt.Sprintf("k%d.sync", k.N), delay, func() error {
		for w.busy() || w.fates > 0 || w.syncing() {
			if k.state == left || k.state == away && k.working == 0 {
				return nil
			}
			if k.rep != nil {
				k.syncing = true
				err := k.rep.Sync()
				k.syncing = false
				if err != nil {
					if k.state != up {
						return nil
					}
					return fmt.Errorf("kernel %d, sync: %w", k.N, err)
				}
			}
			w.WaitTurn()
		}
		return nil
	})
}

// busy reports whether a thread with ops is still going to do something.
func (w *World) busy() bool {
	n := w.working
	for _, k := range w.Kernels {
		if w.frozen[k.N] {
			n -= k.working
		}
	}
	return n > 0
}

// syncing reports whether a syncer is at work that may need the others.
func (w *World) syncing() bool {
	return slices.ContainsFunc(w.Kernels, func(k *Kernel) bool { return k.syncing && !w.frozen[k.N] })
}

// authority is the kernel number of threads that belong to no kernel.
const authority = 1000

// Kill stops kernel k for ever at some step, and has the authority evict it.
func (w *World) Kill(k *Kernel, delay int) { w.fate(k, delay, true, false) }

// Stall stops kernel k at some step, has the authority evict it, and lets it go on.
func (w *World) Stall(k *Kernel, delay int) { w.fate(k, delay, false, false) }

// StallLong is Stall for so long that the other kernels do all their work meanwhile, and the ring is reused.
func (w *World) StallLong(k *Kernel, delay int) { w.fate(k, delay, false, true) }

func (w *World) fate(k *Kernel, delay int, dead, late bool) {
	w.fates++ // the others have to keep the logs going
	w.Go(authority+k.N, fmt.Sprintf("evict%d", k.N), delay, func() error {
		defer func() { w.fates-- }()
		for k.state == away && w.busy() {
			w.WaitTurn()
		}
		if k.state != up {
			return nil
		}
		k.state = doomed
		w.Freeze(k.N)
		if err := w.evict(w.Kernels[0].in, k.id, dead); err != nil {
			return err
		}
		k.state, k.end = evicted, w.Clock
		if !dead {
			if late {
				if err := w.evictOrphans(); err != nil {
					return err
				}
			}
			for late && w.busy() {
				w.WaitTurn()
			}
			w.Thaw(k.N)
			return nil
		}
		return w.evictOrphans()
	})
}

// evict is the membership authority at work.
func (w *World) evict(in *nr.Instance[Op, uint32], id nr.ID, dead bool) error {
	for {
		err := in.Evict(id, dead)
		if err == nil || !errors.Is(err, nr.ErrFull) {
			return err
		}
		// A joiner holds the log that the donor under eviction has just claimed a slot for, perhaps.
		if err := w.evictOrphans(); err != nil {
			return err
		}
		w.WaitTurn()
	}
}

// evictOrphans evicts joiners whose donor died half way: nobody is going to activate them.
func (w *World) evictOrphans() error {
	in := w.Kernels[0].in
	for _, m := range in.Members() {
		known := slices.ContainsFunc(w.Kernels, func(k *Kernel) bool { return k.id == m.ID })
		if m.State == oplog.Joining && !known {
			w.orphaned[m.ID] = true
			if err := w.evict(in, m.ID, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// published notes the ops of kernel n that are in the logs.
func (w *World) published(n int, p oplog.Point) {
	if p != oplog.PtPublish || n >= len(w.Kernels) {
		return
	}
	k := w.Kernels[n]
	for _, l := range k.in.Logs() {
		for p := l.Head(); p < l.Tail(); p++ {
			if e := l.Entry(p); e.Kind == oplog.KindOp && e.ID == k.id {
				if id := uint32(e.Op[len(e.Op)-1] >> 32); w.seen[id] == 0 {
					w.seen[id] = w.Clock
				}
			}
		}
	}
}

// Finish runs the schedule, brings the survivors up to date and checks everything: that all ops linearize, that the survivors
// agree on every part's journal, that no op came through after its kernel's eviction.
func (w *World) Finish() error {
	if err := w.Run(); err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	if err := w.evictOrphans(); err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	for _, k := range w.Kernels {
		if k.state == evicted && !w.frozen[k.N] {
			if err := k.rep.Close(); err != nil {
				return fmt.Errorf("%s: evicted kernel %d, close: %w", w.Name, k.N, err)
			}
		}
	}
	if err := w.settle(); err != nil {
		return fmt.Errorf("%s: last sync: %w", w.Name, err)
	}
	var first *Kernel
	for _, k := range w.Kernels {
		if k.state != up {
			continue
		}
		if err := w.finalRead(k); err != nil {
			return fmt.Errorf("%s: kernel %d, last read: %w", w.Name, k.N, err)
		}
		if first == nil {
			first = k
		}
		if err := w.agree(first, k); err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
	}
	for _, check := range w.checks {
		if err := check(); err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
	}
	return w.Check(w.Name)
}

// settle brings all survivors up to date. They need each other for it: one may hold a log that another has to mark.
func (w *World) settle() error {
	w.Choice, w.threads = inTurn{}, nil
	behind := func() (n uint64) {
		for _, k := range w.Kernels {
			if k.state == up {
				n += k.rep.Behind()
			}
		}
		return n
	}
	for _, k := range w.Kernels {
		if k.state != up {
			continue
		}
		w.Go(k.N, fmt.Sprintf("k%d.settle", k.N), 0, func() error {
			for first := true; first || behind() > 0; first = false {
				if err := k.rep.Sync(); err != nil {
					return fmt.Errorf("kernel %d: %w", k.N, err)
				}
				w.WaitTurn()
			}
			return nil
		})
	}
	return w.Run()
}

// inTurn goes on with the same thread as long as it does not wait.
type inTurn struct{}

func (inTurn) Choose(int, bool) int { return 0 }

func (w *World) finalRead(k *Kernel) error {
	h, err := k.rep.Register()
	if err != nil {
		return err
	}
	for key := range uint8(Keys) {
		w.Clock++
		op := Op{Kind: Get, Key: key}
		call := w.Call(w.clients+k.N, op, w.Clock)
		out, err := h.Read(op)
		if err != nil {
			return err
		}
		w.Clock++
		w.Return(call, out, w.Clock)
	}
	return h.Close()
}

// agree compares the journals of two survivors, and looks for ops in them that came through after an eviction.
func (w *World) agree(a, b *Kernel) error {
	for i := range a.banks {
		if !slices.Equal(a.banks[i].journal, b.banks[i].journal) || a.banks[i].vals != b.banks[i].vals {
			return fmt.Errorf("kernels %d and %d disagree on part %d: journals %v and %v", a.N, b.N, i, a.banks[i].journal,
				b.banks[i].journal)
		}
		for n, id := range b.banks[i].journal {
			if slices.Contains(b.banks[i].journal[:n], id) {
				return fmt.Errorf("op %d was applied twice to part %d", id, i)
			}
			if o := w.owner[id]; o != nil && o.end > 0 && w.seen[id] > o.end {
				return fmt.Errorf("op %d of kernel %d took effect after its eviction", id, o.N)
			}
		}
	}
	return nil
}
