package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
)

// life is a dkernel of the random test, as it sees itself.
type life struct {
	gen    uint64
	up     bool
	names  map[grant.Unit]uint64 // what it was told of
	asking map[uint64]bool       // tokens without an answer
}

// chaos drives a cluster with random events.
type chaos struct {
	*script
	rnd     *rand.Rand
	lives   []life
	tokens  map[uint64]int // who asked
	dirty   map[uint64]bool
	pid     uint64
	history []string
	probes  []Probe
}

// TestRandom drives clusters with random events, sensible and not, with restarts of the ckernel among them. After each the audit is
// clean, nobody is granted what somebody else has, slices are zero when they are granted, and every request is answered once.
func TestRandom(t *testing.T) {
	seeds, steps := uint64(4), 400
	if os.Getenv("DINOS_LONG") != "" {
		seeds, steps = 40, 1500
	}
	for seed := range seeds {
		for _, place := range []string{"firstfit", "sched"} {
			t.Run(fmt.Sprintf("%s %d", place, seed), func(t *testing.T) {
				r := &chaos{script: &script{t: t}, rnd: rand.New(rand.NewPCG(seed, 7)), tokens: map[uint64]int{}, dirty: map[uint64]bool{}, pid: 1}
				_, err := r.script.rack(5, 24, []string{place})
				require.NoError(t, err)
				r.lives = make([]life, 5)
				for range steps {
					r.step()
					_, problems := r.c.Audit()
					require.Empty(t, problems, "after %v", r.history[max(0, len(r.history)-8):])
				}
				r.finish()
			})
		}
	}
}

func (r *chaos) note(format string, args ...any) {
	r.history = append(r.history, fmt.Sprintf(format, args...))
}

func (r *chaos) step() {
	p := 1 + r.rnd.IntN(4)
	l := &r.lives[p]
	if len(r.probes) > 0 && r.rnd.IntN(3) == 0 {
		q := r.probes[0]
		r.probes = r.probes[1:]
		r.note("%d does not know of %d", q.Peer, q.Process)
		r.event(Unknown{q.Peer, q.Process})
	}
	switch n := r.rnd.IntN(100); {
	case n < 12:
		if !l.up {
			*l = life{gen: l.gen + 1 + uint64(r.rnd.IntN(2)), up: true, names: map[grant.Unit]uint64{}, asking: map[uint64]bool{}}
		}
		r.ask(p, &proto.Register{Generation: l.gen, Rack: 1, Cores: 4, Doorbell: uint16(p)})
	case n < 30:
		w := proto.Want{Process: uint64(r.rnd.IntN(4)) * r.pid, Machine: int32(r.rnd.IntN(6) - 1), Spread: r.rnd.IntN(2) == 0}
		least := r.rnd.IntN(4)
		r.ask(p, &proto.RequestCores{Want: w, Min: uint16(least), Max: uint16(least + r.rnd.IntN(3))})
	case n < 50:
		w := proto.Want{Process: uint64(r.rnd.IntN(4)) * r.pid, Machine: int32(r.rnd.IntN(6) - 1)}
		least := r.rnd.IntN(8)
		r.ask(p, &proto.RequestSlices{Want: w, Min: uint32(least), Max: uint32(least + r.rnd.IntN(8))})
	case n < 64:
		r.giveBack(p)
	case n < 70:
		r.claims(p)
	case n < 73:
		r.note("exit")
		r.ask(p, &proto.ExitProcess{PID: uint64(r.rnd.IntN(4)) * r.pid})
		r.pid++
	case n < 75:
		r.ask(p, &proto.Leave{})
	case n < 79:
		r.kill(p)
	case n < 87 && len(r.zeroes) > 0:
		z := r.zeroes[0]
		r.zeroes = r.zeroes[1:]
		delete(r.dirty, z.Unit.Index)
		r.event(Zeroed{z})
	case n < 90:
		for t := range l.asking {
			r.event(Cancel{t})
			delete(l.asking, t)
			break
		}
	case n < 91:
		r.crash()
	default:
		r.look()
	}
}

// look is a tick at which the living beat, mostly.
func (r *chaos) look() {
	r.now += int64(50+r.rnd.IntN(200)) * 1e6
	e := Tick{Now: r.now}
	for i := 1; i < 5; i++ {
		if r.lives[i].up && r.rnd.IntN(12) > 0 {
			r.beats[i]++
			r.ask(i, &proto.Heartbeat{})
		}
		e.Beats = append(e.Beats, Beat{i, r.beats[i]})
	}
	r.event(e)
}

// kill ends a life; sometimes the host says so at once, sometimes later, sometimes never.
func (r *chaos) kill(p int) {
	l := &r.lives[p]
	if l.gen == 0 {
		return
	}
	r.note("kill %d", p)
	l.up = false
	if r.rnd.IntN(2) == 0 {
		r.event(Over{p, l.gen, "killed"})
	}
}

// crash restarts the ckernel.
func (r *chaos) crash() {
	r.note("restart")
	for i := 1; i < 5; i++ {
		l, b := &r.lives[i], &Block{Peer: i}
		if l.gen != 0 {
			b.Generation, b.State, b.Cores = l.gen, layout.StateUp, 4
			b.Fence = r.fences[i]
		}
		r.blocks[i] = b
		clear(l.asking)
	}
	clear(r.tokens)
	_, err := r.restart()
	require.NoError(r.t, err)
	for u, e := range r.table.All() {
		if !u.Core && e.State == grant.Zeroing {
			r.dirty[u.Index] = true
		}
	}
	for i := 1; i < 5; i++ {
		if l := &r.lives[i]; l.up && r.rnd.IntN(4) > 0 {
			r.ask(i, &proto.Register{Generation: l.gen, Rack: 1, Cores: 4})
			r.claims(i)
		}
	}
}

// some are names that a life was told of, and now and then a wrong one.
func (r *chaos) some(p int, share int) (cores []proto.Core, list []proto.Slice) {
	for _, u := range sortedNames(r.lives[p].names) {
		if r.rnd.IntN(100) >= share {
			continue
		}
		g := r.lives[p].names[u]
		if r.rnd.IntN(30) == 0 {
			g += uint64(r.rnd.IntN(3))
		}
		if u.Core {
			cores = append(cores, proto.Core{Machine: uint16(u.Machine), Core: uint16(u.Index), Grant: g})
		} else {
			list = append(list, proto.Slice{Slice: u.Index, Grant: g})
		}
	}
	return cores, list
}

func sortedNames(m map[grant.Unit]uint64) []grant.Unit {
	h := map[grant.Unit]int{}
	for u := range m {
		h[u] = 0
	}
	return sorted(h)
}

func (r *chaos) giveBack(p int) {
	cores, list := r.some(p, 40)
	if r.rnd.IntN(2) == 0 {
		if r.ask(p, &proto.ReleaseCores{Cores: cores}) {
			for _, k := range cores {
				delete(r.lives[p].names, grant.Core(int(k.Machine), int(k.Core)))
			}
		}
		return
	}
	if r.ask(p, &proto.ReleaseSlices{Slices: list}) {
		for _, s := range list {
			delete(r.lives[p].names, grant.Slice(s.Slice))
		}
	}
}

func (r *chaos) claims(p int) {
	l := &r.lives[p]
	cores, list := r.some(p, 95)
	if len(l.asking) > 0 {
		return // a dkernel claims when it has asked for nothing
	}
	old := l.names
	l.names = map[grant.Unit]uint64{}
	if !r.ask(p, &proto.Claim{Cores: cores, Slices: list, First: true, Last: true}) {
		l.names = old
	}
}

// ask sends a request and reports whether it was granted at once.
func (r *chaos) ask(p int, m proto.Request) bool {
	l := &r.lives[p]
	r.token++
	r.tokens[r.token] = p
	if l.asking != nil {
		l.asking[r.token] = true
	}
	r.note("%d@%d asks %v %+v", p, l.gen, m.Type(), deref(m))
	return r.event(Request{Token: r.token, From: p, Generation: uint32(l.gen), Message: m})
}

// event steps and checks what is to be done. It reports whether the last request was answered without an error.
func (r *chaos) event(e Event) (granted bool) {
	before := map[grant.Unit]grant.Entry{}
	for u, en := range r.table.All() {
		before[u] = en
	}
	for _, a := range append([]Action(nil), r.c.Step(e)...) {
		switch a := a.(type) {
		case Reply:
			granted = r.answered(a) || granted
		case Zero:
			r.zeroes = append(r.zeroes, a.Name)
		case Probe:
			r.probes = append(r.probes, a)
		case StoreEpoch:
			r.epoch = a.Epoch
		case StoreFence:
			r.fences[a.Peer] = a.Generation
		case Stop:
			r.t.Fatalf("%v", a)
		}
	}
	for u, en := range r.table.All() {
		if u.Core {
			continue
		}
		was := before[u]
		if was.State == grant.Held && en.State == grant.Held && en.Grant != was.Grant {
			require.True(r.t, was.Owner.Process != 0 && en.Owner.Process == was.Owner.Process && en.Owner.Peer != was.Owner.Peer, "%v: %v, %v", u, was, en)
			continue // its process has it still
		}
		if was.State == grant.Held && en.State != grant.Held {
			r.dirty[u.Index] = true
		}
		if en.State == grant.Held || en.State == grant.Free {
			require.False(r.t, en.Grant != was.Grant && r.dirty[u.Index] && en.State == grant.Held, "%v is granted and not zero", u)
		}
	}
	return granted
}

func (r *chaos) answered(a Reply) bool {
	p, ok := r.tokens[a.Token]
	require.True(r.t, ok, "answered twice, or never asked: %v", a)
	delete(r.tokens, a.Token)
	l := &r.lives[p]
	delete(l.asking, a.Token)
	if a.Err != nil {
		require.NotEqual(r.t, proto.CodeInternal, a.Err.Code, a.Err.Text)
		return false
	}
	if r.rnd.IntN(10) == 0 {
		return true // the answer gets lost
	}
	add := func(cores []proto.Core, list []proto.Slice) {
		for _, k := range cores {
			if k.Grant != 0 {
				l.names[grant.Core(int(k.Machine), int(k.Core))] = k.Grant
			}
		}
		for _, s := range list {
			if s.Grant != 0 {
				l.names[grant.Slice(s.Slice)] = s.Grant
			}
		}
	}
	switch m := a.Message.(type) {
	case *proto.RequestCoresReply:
		add(m.Cores, nil)
	case *proto.RequestSlicesReply:
		add(nil, m.Slices)
	case *proto.ClaimReply:
		add(m.Cores, m.Slices)
	}
	return true
}

// finish ends all lives: everything is free again.
func (r *chaos) finish() {
	for p := 1; p < 5; p++ {
		r.event(Over{p, r.lives[p].gen, "the end"})
	}
	for len(r.zeroes) > 0 {
		z := r.zeroes[0]
		r.zeroes = r.zeroes[1:]
		r.event(Zeroed{z})
	}
	n := r.table.Counts()
	require.Equal(r.t, n.Slices, n.FreeSlices)
	require.Zero(r.t, n.Cores+n.Held+n.Lost)
	require.Empty(r.t, r.c.waits)
}
