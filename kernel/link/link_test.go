package link

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/boot/info"
	"dinos/kernel/ivshmem"
	"dinos/kernel/pci"
	"dinos/shmem/layout"
	"dinos/shmem/peer"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

func identity(t *testing.T, line string) (Identity, error) {
	t.Helper()
	a, err := info.ParseArgs(line)
	require.NoError(t, err)
	return ParseIdentity(a)
}

func TestIdentity(t *testing.T) {
	for line, want := range map[string]Identity{
		"":             {},
		"bench=rpc":    {},
		"dinos.peer=0": {Given: true},
		"dinos.peer=3": {Given: true, Peer: 3},
		"dinos.peer=3 dinos.name=x dinos.rack=0x10":         {Given: true, Peer: 3, Name: "x", Rack: 16},
		"dinos.peer=31 dinos.rack=18446744073709551615 a=b": {Given: true, Peer: 31, Rack: 1<<64 - 1},
	} {
		got, err := identity(t, line)
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
	}
	for line, want := range map[string]string{
		"dinos.peer":                          "needs a value",
		"dinos.peer=":                         "want a number from 0 to 31",
		"dinos.peer=32":                       "want a number from 0 to 31",
		"dinos.peer=1 dinos.peeer=1":          "unknown word dinos.peeer, known are dinos.peer",
		"dinos.peer=-1":                       "want a number from 0 to 31",
		"dinos.peer=1 dinos.rack=0":           "want a number from 1",
		"dinos.peer=1 dinos.rack=x":           "want a number from 1",
		"dinos.peer=1 dinos.name=":            "dinos.name of 0 bytes",
		"dinos.name=x":                        "dinos.name is given without dinos.peer",
		"dinos.rack=1":                        "dinos.rack is given without dinos.peer",
		"dinos.peer=1 dinos.name=" + longName: "want 1 to",
	} {
		_, err := identity(t, line)
		require.ErrorIs(t, err, ErrIdentity, line)
		require.ErrorContains(t, err, want, line)
	}
}

var longName = strings.Repeat("a", 300)

func TestFind(t *testing.T) {
	bridge := &pci.Device{Vendor: 0x1b36, Product: 8}
	a := &pci.Device{Vendor: ivshmem.Vendor, Product: ivshmem.Product}
	b := &pci.Device{Address: pci.Address{Device: 3}, Vendor: ivshmem.Vendor, Product: ivshmem.Product}
	for _, list := range [][]*pci.Device{nil, {bridge}} {
		d, err := Find(list)
		require.NoError(t, err)
		require.Nil(t, d)
	}
	d, err := Find([]*pci.Device{bridge, a})
	require.NoError(t, err)
	require.Same(t, a, d)
	_, err = Find([]*pci.Device{a, bridge, b})
	require.ErrorIs(t, err, ErrDevice)
	require.ErrorContains(t, err, "00:03.0")
}

// fake is a Device whose doorbells go nowhere.
type fake struct {
	memory []byte
	event  pci.Event
	rung   [][2]int
}

func (f *fake) ID() int        { return 7 }
func (f *fake) Memory() []byte { return f.memory }
func (f *fake) Ring(peer, vector int) error {
	f.rung = append(f.rung, [2]int{peer, vector})
	return nil
}

func (f *fake) Event(vector int) (pci.Event, error) {
	if vector != peer.Vector {
		return nil, ivshmem.ErrVector
	}
	return f.event, nil
}

// counter is an Event of a channel: sends coalesce, as an eventfd's reads do.
type counter chan struct{}

func (c counter) Raise() error {
	select {
	case c <- struct{}{}:
	default:
	}
	return nil
}

func (c counter) Wait() (uint64, error) {
	<-c
	return 1, nil
}

// interruptsOnly is an event that only interrupts raise.
type interruptsOnly struct{}

func (interruptsOnly) Wait() (uint64, error) { return 0, errors.New("never") }

const size = 8 << 20

func formatted(t *testing.T) (*fake, region.Region) {
	f := &fake{memory: region.Slab(size), event: make(counter, 1)}
	r, err := region.New(f.memory)
	require.NoError(t, err)
	_, err = layout.Format(r, layout.Config{Machines: 3, Logs: layout.NoLogs}, 77)
	require.NoError(t, err)
	return f, r
}

func machine() Machine {
	return Machine{Possible: 2, Cores: 2, RAM: 1 << 28, TSCHz: 1e9, Clock: rpc.NewSystemClock(),
		TSC: func() uint64 { return 5 }, Random: rand.Uint64}
}

func TestAttach(t *testing.T) {
	f, _ := formatted(t)
	cfg, s, err := Attach(machine(), f, Identity{Given: true, Peer: 2, Rack: 77}, 'd')
	require.NoError(t, err)
	require.Equal(t, "dkernel2", cfg.Name)
	cfg.Ring(9, peer.Vector)
	require.Equal(t, [][2]int{{9, 0}}, f.rung)
	p, err := peer.Open(cfg)
	require.NoError(t, err)
	require.Equal(t, 2, p.Self())
	require.EqualValues(t, 8, p.Block(2).Doorbell.Load())
	require.EqualValues(t, 2, p.Block(2).Cores.Load())
	got := uint64(99)
	cfg.Stats(func(s layout.Stat, v uint64) {
		require.Equal(t, layout.StatDoorbellsTaken, s)
		got = v
	})
	require.EqualValues(t, s.Rings(), got)
}

// TestAttachRefuses: each thing that does not fit is refused with its own error, and nothing in the memory has changed.
func TestAttachRefuses(t *testing.T) {
	good := Identity{Given: true, Peer: 1}
	for name, c := range map[string]struct {
		spoil func(f *fake, r region.Region, m *Machine, id *Identity)
		kind  byte
		err   error
		text  string
	}{
		"no identity":   {func(_ *fake, _ region.Region, _ *Machine, id *Identity) { id.Given = false }, 'd', ErrIdentity, "must say dinos.peer=N"},
		"ckernel as 1":  {func(*fake, region.Region, *Machine, *Identity) {}, 'c', ErrIdentity, "0 is the ckernel"},
		"dkernel as 0":  {func(_ *fake, _ region.Region, _ *Machine, id *Identity) { id.Peer = 0 }, 'd', ErrIdentity, "dkernels are 1 and up"},
		"no such peer":  {func(_ *fake, _ region.Region, _ *Machine, id *Identity) { id.Peer = 3 }, 'd', ErrIdentity, "room for peers 0 to 2"},
		"one CPU":       {func(_ *fake, _ region.Region, m *Machine, _ *Identity) { m.Possible = 1 }, 'd', ErrMachine, "maxcpus=2"},
		"other rack":    {func(_ *fake, _ region.Region, _ *Machine, id *Identity) { id.Rack = 78 }, 'd', ErrRack, "generation 77 in memory, the command line says dinos.rack=78"},
		"not formatted": {func(_ *fake, r region.Region, _ *Machine, _ *Identity) { r.StoreU64(0, 0) }, 'd', layout.ErrUnformatted, "magic 0x0"},
		"other version": {func(_ *fake, r region.Region, _ *Machine, _ *Identity) { r.StoreU64(8, 99) }, 'd', layout.ErrVersion, "99 in memory"},
		"bit flip":      {func(_ *fake, r region.Region, _ *Machine, _ *Identity) { r.StoreU64(32, 4) }, 'd', layout.ErrCorrupt, "checksum"},
		"too small":     {func(f *fake, _ region.Region, _ *Machine, _ *Identity) { f.memory = f.memory[:size/2] }, 'd', layout.ErrTooSmall, "was formatted for 8388608"},
		"far too small": {func(f *fake, _ region.Region, _ *Machine, _ *Identity) { f.memory = f.memory[:64] }, 'd', layout.ErrTooSmall, "64 bytes"},
		"wrong event":   {func(f *fake, _ region.Region, _ *Machine, _ *Identity) { f.event = interruptsOnly{} }, 'd', ErrDevice, "cannot be raised"},
	} {
		t.Run(name, func(t *testing.T) {
			f, r := formatted(t)
			m, id := machine(), good
			c.spoil(f, r, &m, &id)
			before := append([]byte(nil), f.memory[:min(len(f.memory), 1<<20)]...)
			_, _, err := Attach(m, f, id, c.kind)
			require.ErrorIs(t, err, c.err)
			require.ErrorContains(t, err, c.text)
			require.Equal(t, before, f.memory[:len(before)])
		})
	}
}

// TestSleeper: a wake-up ends a sleep, whether it comes before or during it, by doorbell or by Wake; and time does.
func TestSleeper(t *testing.T) {
	e := make(counter, 1)
	s := NewSleeper(e, rpc.NewSystemClock())
	s.Wake()
	s.Sleep(rpc.Forever) // woken before
	go func() {
		time.Sleep(time.Millisecond)
		s.Wake()
	}()
	s.Sleep(rpc.Forever)
	go func() {
		time.Sleep(time.Millisecond)
		e.Raise() // the interrupt
	}()
	s.Sleep(rpc.Forever)
	clock := s.clock
	until := clock.Now() + int64(3*time.Millisecond)
	for clock.Now() < until {
		s.Sleep(until)
	}
	s.Sleep(clock.Now()) // over already
}

// TestSleeperLosesNothing: a sleeper and a waker in a race; a lost wake-up is a hang. Timers must not be needed, and those that
// are set and forgotten must not do harm.
func TestSleeperLosesNothing(t *testing.T) {
	e := make(counter, 1)
	s := NewSleeper(e, rpc.NewSystemClock())
	const rounds = 20_000
	turn := make(chan int, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < rounds; {
			select {
			case got := <-turn:
				if got != i {
					t.Errorf("turn %d, want %d", got, i)
					return
				}
				i++
				continue
			default:
			}
			until := rpc.Forever
			if i%3 == 0 {
				until = s.clock.Now() + int64(time.Hour)
			}
			s.Sleep(until)
		}
	}()
	for i := range rounds {
		turn <- i
		if i%2 == 0 {
			s.Wake()
		} else {
			e.Raise()
		}
	}
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("a wake-up was lost")
	}
}

// TestSleeperTimer: a later deadline after an earlier one has a timer too.
func TestSleeperTimer(t *testing.T) {
	s := NewSleeper(make(counter, 1), rpc.NewSystemClock())
	for i := range 50 {
		until := s.clock.Now() + int64(i%7)*int64(100*time.Microsecond)
		start := time.Now()
		for s.clock.Now() < until {
			s.Sleep(until)
		}
		require.Less(t, time.Since(start), 20*time.Second)
	}
}
