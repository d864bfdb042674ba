package ktest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"dinos/kernel/ivshmem"
	"dinos/kernel/testproto"
	"dinos/kernel/x86"
	"dinos/shmem/region"
)

// patience bounds what a peer does; on a busy host it may take long.
const patience = 60 * time.Second

// openShared opens the first ivshmem device; the test is skipped without one, or without the key that names the other side's part.
func (s *suite) openShared(t *testproto.T, part string, vectors int) *ivshmem.Device {
	if got, err := s.m.Args.String("ivshmem", ""); err != nil || got != part {
		t.Skipf("the command line does not say ivshmem=%s: nobody plays the other part", part)
	}
	i := slices.IndexFunc(s.m.Devices(), ivshmem.Is)
	if i < 0 {
		t.Fatalf("the machine has no ivshmem device")
	}
	d, err := ivshmem.Open(s.m.PCI(), s.m.Devices()[i], vectors)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return d
}

// sharedPattern is word i of the pattern that side writes: 0 the kernel, 1 the host.
func sharedPattern(side, i uint64) uint64 { return (i + 1) * (0x9e3779b97f4a7c15 + 2*side) }

// shared: the kernel writes a pattern into the first and the last MiB of shared memory, for the host to read, and reads the
// host's in its place. The first two words are turns: the kernel's, then the host's.
func (s *suite) shared(t *testproto.T) {
	d := s.openShared(t, "pattern", 0)
	b := d.Memory()
	r, err := region.New(b)
	if err != nil {
		t.Fatalf("%v", err)
	}
	words := uint64(len(b)) / 8
	parts := [][2]uint64{{2, 1 << 17}, {words - 1<<17, words}}
	for _, p := range parts {
		for i := p[0]; i < p[1]; i++ {
			binary.LittleEndian.PutUint64(b[i*8:], sharedPattern(0, i))
		}
	}
	word(t, r, 0).Store(1)
	if !await(word(t, r, 8), 1) {
		t.Fatalf("the host did not answer within %v", patience)
	}
	for _, p := range parts {
		for i := p[0]; i < p[1]; i++ {
			if got := binary.LittleEndian.Uint64(b[i*8:]); got != sharedPattern(1, i) {
				t.Fatalf("word %d is %#x, want %#x", i, got, sharedPattern(1, i))
			}
		}
	}
	t.Logf("%d MiB", len(b)>>20)
}

func word(t *testproto.T, r region.Region, off uint64) *atomic.Uint64 {
	w, err := r.U64(region.Off(off))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return w
}

// await waits until w is at least v, without keeping the CPU busy.
func await(w *atomic.Uint64, v uint64) bool {
	for end := time.Now().Add(patience); w.Load() < v; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Each peer has a page of shared memory, for words that only it writes.
const (
	boxPage  = 4096
	boxReady = 0   // it listens
	boxValue = 128 // the number of the ping it sent or answered
	boxSpin  = 256 // likewise, without doorbells
	boxDone  = 384 // its additions are made

	sumOff    = 0 // a word in page 0 that all add to
	additions = 100_000
)

func box(id int, field uint64) uint64 { return uint64(1+id)*boxPage + field }

// pinger is one side of a conversation over doorbell vector 0 and shared memory.
type pinger struct {
	d                    *ivshmem.Device
	peer                 int
	rounds               uint64
	mine, theirs         *atomic.Uint64
	mySpin, theirSpin    *atomic.Uint64
	wait                 func() (uint64, error)
	sum, myDone, hisDone *atomic.Uint64
}

// call and answer are two kernels that ping each other: by doorbell, by memory only; and both add to one word, which shows
// whether their atomics are atomic towards each other.
func (s *suite) call(t *testproto.T) {
	p := s.pinger(t, "call")
	if !await(word(t, s.sharedRegion(t, p.d), box(p.peer, boxReady)), 1) {
		t.Fatalf("peer %d did not come up within %v", p.peer, patience)
	}
	took, err := p.call()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Logf("doorbell round trip, both halted: %s", quantiles(took))
	if took, err = p.spin(true); err != nil {
		t.Fatalf("%v", err)
	}
	t.Logf("memory round trip, both polling: %s", quantiles(took))
	p.add(t)
}

func (s *suite) answer(t *testproto.T) {
	p := s.pinger(t, "answer")
	word(t, s.sharedRegion(t, p.d), box(p.d.ID(), boxReady)).Store(1)
	if err := p.answer(); err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := p.spin(false); err != nil {
		t.Fatalf("%v", err)
	}
	p.add(t)
}

// answerHost rings itself, on the other vector, and then answers the host's doorbells.
func (s *suite) answerHost(t *testproto.T) {
	p := s.pinger(t, "host")
	took, err := p.self(1)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Logf("doorbell to itself: %s", quantiles(took))
	word(t, s.sharedRegion(t, p.d), box(p.d.ID(), boxReady)).Store(1)
	if err := p.answer(); err != nil {
		t.Fatalf("%v", err)
	}
	t.Logf("%d rounds", p.rounds)
}

func (s *suite) sharedRegion(t *testproto.T, d *ivshmem.Device) region.Region {
	r, err := region.New(d.Memory())
	if err != nil {
		t.Fatalf("%v", err)
	}
	return r
}

func (s *suite) pinger(t *testproto.T, part string) *pinger {
	d := s.openShared(t, part, 2)
	peer, err := s.m.Args.Uint("peer", 0, 0, ivshmem.MaxPeer)
	if err != nil {
		t.Fatalf("%v", err)
	}
	rounds, err := s.m.Args.Uint("rounds", 1000, 1, 1e6)
	if err != nil {
		t.Fatalf("%v", err)
	}
	e, err := d.Event(0)
	if err != nil {
		t.Fatalf("%v", err)
	}
	r, id := s.sharedRegion(t, d), int(peer)
	return &pinger{d: d, peer: id, rounds: rounds, wait: e.Wait,
		mine: word(t, r, box(d.ID(), boxValue)), theirs: word(t, r, box(id, boxValue)),
		mySpin: word(t, r, box(d.ID(), boxSpin)), theirSpin: word(t, r, box(id, boxSpin)),
		sum: word(t, r, sumOff), myDone: word(t, r, box(d.ID(), boxDone)), hisDone: word(t, r, box(id, boxDone))}
}

// call sends pings and returns how long each took to come back.
func (p *pinger) call() ([]time.Duration, error) {
	took := make([]time.Duration, 0, p.rounds)
	for i := uint64(1); i <= p.rounds; i++ {
		start := time.Now()
		p.mine.Store(i)
		if err := p.d.Ring(p.peer, 0); err != nil {
			return nil, err
		}
		for p.theirs.Load() < i {
			if _, err := p.wait(); err != nil {
				return nil, err
			}
		}
		took = append(took, time.Since(start))
		if got := p.theirs.Load(); got != i {
			return nil, fmt.Errorf("ping %d was answered with %d", i, got)
		}
	}
	return took, nil
}

// self rings the machine's own doorbell and waits for it.
func (p *pinger) self(vector int) ([]time.Duration, error) {
	e, err := p.d.Event(vector)
	if err != nil {
		return nil, err
	}
	took := make([]time.Duration, 0, p.rounds)
	for range p.rounds {
		start := time.Now()
		if err := p.d.Ring(p.d.ID(), vector); err != nil {
			return nil, err
		}
		n, err := e.Wait()
		if err != nil {
			return nil, err
		}
		if n != 1 {
			return nil, fmt.Errorf("rang itself once, heard it %d times", n)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// answer sends back what comes.
func (p *pinger) answer() error {
	for last := uint64(0); last < p.rounds; {
		n, err := p.wait()
		if err != nil {
			return err
		}
		v := p.theirs.Load()
		if v != last+1 || n != 1 {
			return fmt.Errorf("after ping %d: %d rings, and ping %d", last, n, v)
		}
		last = v
		p.mine.Store(v)
		if err := p.d.Ring(p.peer, 0); err != nil {
			return err
		}
	}
	return nil
}

// spin is a conversation in which both sides poll.
func (p *pinger) spin(first bool) ([]time.Duration, error) {
	var took []time.Duration
	for i := uint64(1); i <= p.rounds; i++ {
		start := time.Now()
		if first {
			p.mySpin.Store(i)
		}
		for n := 1; p.theirSpin.Load() < i; n++ {
			x86.Pause()
			if n&0xfffff == 0 && time.Since(start) > patience {
				return nil, fmt.Errorf("polling: round %d was not answered within %v", i, patience)
			}
		}
		if !first {
			p.mySpin.Store(i)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// add adds to the common word, and checks the sum when the peer is done too.
func (p *pinger) add(t *testproto.T) {
	for range additions {
		p.sum.Add(1)
	}
	p.myDone.Store(1)
	if !await(p.hisDone, 1) {
		t.Fatalf("peer %d did not finish within %v", p.peer, patience)
	}
	if got := p.sum.Load(); got != 2*additions {
		t.Errorf("two machines added %d each, the sum is %d: atomics are not atomic between them", additions, got)
	}
}

func quantiles(d []time.Duration) string {
	slices.Sort(d)
	at := func(q int) time.Duration { return d[len(d)*q/100].Round(10 * time.Nanosecond) }
	return fmt.Sprintf("p50 %v, p99 %v, min %v, %d rounds", at(50), at(99), at(0), len(d))
}
