package ring

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/nr/nrtest"
)

// stage is two threads over one ring under the step scheduler: a virtual doorbell each.
type stage struct {
	s        *nrtest.Sched
	tx       *Tx
	rx       *Rx
	rxBell   bool // rung and not heard
	txBell   bool
	sleeps   int
	armRx    func() bool
	flush    func() error
	messages int
	size     int
	batch    int
}

func newStage(t *testing.T, c nrtest.Chooser, data uint64, messages, size, batch int) *stage {
	r := made(t, data)
	st := &stage{s: nrtest.NewSched(c), messages: messages, size: size, batch: batch}
	var err error
	st.tx, err = AttachTx(r, data, func() { st.rxBell = true })
	require.NoError(t, err)
	st.rx, err = AttachRx(r, data, Resume, func() { st.txBell = true })
	require.NoError(t, err)
	step := func(point) { st.s.Yield() }
	st.tx.probe, st.rx.probe = step, step
	st.armRx, st.flush = st.rx.Arm, st.tx.Flush
	return st
}

// hear sleeps until the doorbell rings; nothing else ends the sleep, so a lost wake-up is for ever.
func (st *stage) hear(bell *bool) {
	st.sleeps++
	for !*bell {
		st.s.WaitTurn()
	}
	*bell = false
}

func (st *stage) send() error {
	m := make([]byte, st.size)
	for i := 0; i < st.messages; {
		m[0] = byte(i)
		switch err := st.tx.Push(nil, m); err {
		case nil:
			if i++; i%st.batch == 0 || i == st.messages {
				if err := st.flush(); err != nil {
					return err
				}
			}
		case ErrFull:
			if err := st.flush(); err != nil {
				return err
			}
			if st.tx.Arm(len(m)) {
				st.hear(&st.txBell)
			}
			st.tx.Disarm()
		default:
			return err
		}
	}
	return nil
}

func (st *stage) receive() error {
	buf := make([]byte, 64)
	for i := 0; i < st.messages; {
		switch n, err := st.rx.Recv(buf); err {
		case nil:
			if n != st.size || buf[0] != byte(i) {
				return fmt.Errorf("got %d bytes %d, want %d bytes %d", n, buf[0], st.size, i)
			}
			i++
		case ErrEmpty:
			if st.armRx() {
				st.hear(&st.rxBell)
			}
			st.rx.Disarm()
		default:
			return err
		}
	}
	return nil
}

func (st *stage) run() error {
	st.s.Go(0, "sender", 0, st.send)
	st.s.Go(1, "receiver", 0, st.receive)
	return st.s.Run()
}

// stuck counts the schedules of a case, and those that end in a sleep without end.
func explore(t *testing.T, bound int, mutate func(*stage), data uint64, messages, size, batch int) (runs, stuck, sleeps int) {
	e := &nrtest.Explorer{Bound: bound}
	for e.Begin(); e.More(); e.End() {
		st := newStage(t, e, data, messages, size, batch)
		if mutate != nil {
			mutate(st)
		}
		err := st.run()
		sleeps += st.sleeps
		if errors.Is(err, nrtest.ErrStuck) {
			stuck++
			if mutate != nil {
				return e.Runs, stuck, sleeps
			}
		}
		if err != nil {
			require.ErrorIs(t, err, nrtest.ErrStuck)
			t.Fatalf("schedule %v: %v", e.Path(), err)
		}
	}
	return e.Runs, stuck, sleeps
}

// TestNoLostWakeup runs every schedule of small cases, and of larger ones all with a few preemptions (more with
// DINOS_LONG=1). Steps are sequentially
// consistent here; what amd64 reorders (a store with a later load) is covered by the mutation "check before publish" below,
// which is that reordering, and by TestConcurrent.
func TestNoLostWakeup(t *testing.T) {
	for _, c := range []struct {
		name                  string
		bound, longBound      int // preemptions; -1 is no bound
		data                  uint64
		messages, size, batch int
	}{
		{"one message", -1, -1, 64, 1, 8, 1},
		{"two messages", 4, -1, 64, 2, 8, 1},
		{"two messages in a batch", -1, -1, 64, 2, 8, 2},
		{"full ring", 2, 5, 64, 3, 48, 1},
		{"full ring, batches", 2, 4, 64, 6, 16, 2},
		{"many", 2, 4, 64, 8, 8, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			bound := c.bound
			if os.Getenv("DINOS_LONG") == "1" {
				bound = c.longBound
			}
			runs, _, sleeps := explore(t, bound, nil, c.data, c.messages, c.size, c.batch)
			require.Greater(t, runs, 20, "so few schedules mean that steps are not seen")
			require.Positive(t, sleeps, "nobody ever slept")
			t.Logf("%d schedules, %d sleeps", runs, sleeps)
		})
	}
}

// TestMutationsAreCaught breaks the protocol in each of its places; the explorer must find the lost wake-up.
func TestMutationsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name   string
		mutate func(*stage)
	}{
		{"receiver does not look again", func(st *stage) {
			st.armRx = func() bool {
				st.rx.Release()
				st.rx.at(ptStoreSleep)
				st.rx.rxSleep.Store(1)
				return true
			}
		}},
		{"receiver looks, then says that it sleeps", func(st *stage) {
			st.armRx = func() bool {
				st.rx.Release()
				if st.rx.Ready() {
					return false
				}
				st.rx.at(ptStoreSleep)
				st.rx.rxSleep.Store(1)
				return true
			}
		}},
		{"sender checks before it publishes, as without a fence", func(st *stage) {
			st.flush = func() error {
				tx := st.tx
				tx.at(ptLoadSleep)
				asleep := tx.rxSleep.Load() != 0
				tx.at(ptStoreTail)
				tx.tailWord.Store(tx.gen<<posBits | tx.tail)
				tx.pub = tx.tail
				if asleep && tx.rxSleep.Swap(0) != 0 {
					tx.notify()
				}
				return nil
			}
		}},
		{"sender does not ring", func(st *stage) { st.tx.notify = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			runs, stuck, _ := explore(t, -1, c.mutate, 64, 2, 8, 1)
			require.Positive(t, stuck, "%d schedules and the mutation was not noticed", runs)
		})
	}
	t.Run("sender that waits for room does not look again", func(t *testing.T) {
		_, stuck, _ := explore(t, -1, func(st *stage) { st.rx.notify = nil }, 64, 3, 48, 1)
		require.Positive(t, stuck)
	})
}

// TestOneDoorbellPerSleep: however many messages are sent meanwhile.
func TestOneDoorbellPerSleep(t *testing.T) {
	r := made(t, 1024)
	rung := 0
	tx, err := AttachTx(r, 1024, func() { rung++ })
	require.NoError(t, err)
	rx, err := AttachRx(r, 1024, Resume, nil)
	require.NoError(t, err)
	send := func() {
		require.NoError(t, tx.Push(nil, []byte("x")))
		require.NoError(t, tx.Flush())
	}
	send()
	require.Zero(t, rung, "the receiver was awake")
	require.False(t, rx.Arm(), "there is a message")
	_, err = rx.Recv(make([]byte, 8))
	require.NoError(t, err)
	require.True(t, rx.Arm())
	for range 10 {
		send()
	}
	require.Equal(t, 1, rung)
	rx.Disarm()
	send()
	require.Equal(t, 1, rung)
}

// TestMultiNoLostWakeup is the same for two senders and fixed slots.
func TestMultiNoLostWakeup(t *testing.T) {
	for _, recheck := range []bool{true, false} {
		e := &nrtest.Explorer{Bound: 2}
		stuck, sleeps := 0, 0
		for e.Begin(); e.More() && stuck == 0; e.End() {
			r := madeMulti(t, 2, 64)
			s := nrtest.NewSched(e)
			bell := false
			rx, err := AttachMultiRx(r, 2, 64)
			require.NoError(t, err)
			rx.probe = func(point) { s.Yield() }
			for i := range 2 {
				tx, err := AttachMultiTx(r, 2, 64, Sender{uint8(i), 1}, func() { bell = true })
				require.NoError(t, err)
				tx.probe = rx.probe
				s.Go(i, fmt.Sprint("sender ", i), 0, func() error { return tx.Send([]byte{byte(i)}) })
			}
			s.Go(2, "receiver", 0, func() error {
				var got [2]bool
				buf := make([]byte, 8)
				for n := 0; n < 2; {
					_, from, err := rx.Recv(buf)
					switch {
					case err == nil:
						if got[buf[0]] || from.Slot != buf[0] {
							return fmt.Errorf("message %d of %v again", buf[0], from)
						}
						got[buf[0]] = true
						n++
					case err != ErrEmpty:
						return err
					default:
						sleep := true
						if recheck {
							sleep = rx.Arm()
						} else {
							rx.at(ptStoreSleep)
							rx.rxSleep.Store(1)
						}
						for sleep && !bell {
							sleeps++
							s.WaitTurn()
						}
						bell = false
						rx.Disarm()
					}
				}
				return nil
			})
			if err := s.Run(); errors.Is(err, nrtest.ErrStuck) {
				stuck++
			} else {
				require.NoError(t, err, "schedule %v", e.Path())
			}
		}
		require.Positive(t, sleeps)
		require.Equal(t, !recheck, stuck > 0)
		t.Logf("re-check %v: %d schedules, %d stuck", recheck, e.Runs, stuck)
	}
}
