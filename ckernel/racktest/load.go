package racktest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"dinos/dkernel/ctl"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// Load has a dkernel ask for cores and slices and give them back, until its life or ctx ends. Each slice that it gets must be zero; it
// writes a mark that is its own and finds it again before it gives the slice back. The error is a violation, nil if there was none.
func (r *Rack) Load(ctx context.Context, m *Machine, seed uint64) error {
	l := &load{r: r, n: m.Node, rnd: rand.New(rand.NewPCG(seed, uint64(m.Peer)<<32|m.Node.Generation())), mark: seed<<40 | uint64(m.Peer)<<32 | m.Node.Generation()}
	if !m.use() {
		return nil
	}
	defer m.users.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		select {
		case <-m.Done:
			return nil
		default:
		}
		err := l.step(ctx)
		var remote *rpc.RemoteError
		switch {
		case err == nil:
		case errors.As(err, &remote) && (remote.Code == proto.CodeExhausted || remote.Code == proto.CodeNotFound):
			time.Sleep(time.Millisecond)
		case errors.Is(err, ctl.ErrEnded), ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("%s generation %d: %w", r.K.PeerName(m.Peer), m.Node.Generation(), err)
		}
	}
	return nil
}

type load struct {
	r      *Rack
	n      *ctl.Node
	rnd    *rand.Rand
	mark   uint64
	cores  []proto.Core
	slices []proto.Slice
}

func (l *load) step(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, time.Duration(1+l.rnd.IntN(5000))*time.Millisecond)
	defer cancel()
	w := proto.Want{Machine: -1}
	if l.rnd.IntN(3) > 0 {
		w.Process = uint64(l.n.Self())<<32 | l.n.Generation()<<4 | uint64(l.rnd.IntN(3)+1)
	}
	switch l.rnd.IntN(4) {
	case 0:
		cores, err := l.n.RequestCores(short, w, 1, 1+l.rnd.IntN(3))
		l.cores = append(l.cores, cores...)
		return l.impatient(short, err)
	case 1:
		list, err := l.n.RequestSlices(short, w, 1, 1+l.rnd.IntN(3))
		if err != nil {
			return l.impatient(short, err)
		}
		for _, s := range list {
			if err := l.use(s); err != nil {
				return err
			}
		}
		l.slices = append(l.slices, list...)
	case 2:
		k := l.rnd.IntN(len(l.cores) + 1)
		give := l.cores[:k]
		l.cores = l.cores[k:]
		return l.impatient(short, giveBack(give, func(u []proto.Core) error { return l.n.ReleaseCores(short, u) }))
	case 3:
		k := l.rnd.IntN(len(l.slices) + 1)
		give := l.slices[:k]
		l.slices = l.slices[k:]
		for _, s := range give {
			if err := l.found(s); err != nil {
				return err
			}
		}
		return l.impatient(short, giveBack(give, func(u []proto.Slice) error { return l.n.ReleaseSlices(short, u) }))
	}
	return nil
}

// impatient drops the error of a deadline that this load has set.
func (l *load) impatient(short context.Context, err error) error {
	if err != nil && short.Err() != nil {
		return nil
	}
	return err
}

// isDenied is the answer to a release of what is not held any more: the unit was on a machine that died.
func isDenied(err error) bool {
	var remote *rpc.RemoteError
	return errors.As(err, &remote) && remote.Code == proto.CodeDenied
}

// giveBack releases all, or, if some are not held any more, the others.
func giveBack[U any](units []U, release func([]U) error) error {
	err := release(units)
	if !isDenied(err) {
		return err
	}
	for i := range units {
		if err := release(units[i : i+1]); err != nil && !isDenied(err) {
			return err
		}
	}
	return nil
}

const words = 16 // of a slice that are looked at, spread over it

func (l *load) each(s proto.Slice, f func(i int, w []byte) error) error {
	b, err := l.n.Slice(s)
	if err != nil {
		return err
	}
	for i := range words {
		off := i * (len(b) / words)
		if err := f(i, b[off:off+8]); err != nil {
			return err
		}
	}
	return nil
}

// use checks that a slice is zero, and marks it.
func (l *load) use(s proto.Slice) error {
	return l.each(s, func(i int, w []byte) error {
		if v := binary.LittleEndian.Uint64(w); v != 0 {
			return fmt.Errorf("slice %d, grant %#x: word %d is %#x, want 0", s.Slice, s.Grant, i, v)
		}
		binary.LittleEndian.PutUint64(w, l.mark+uint64(i)<<48)
		return nil
	})
}

// found checks that a slice is as this load left it.
func (l *load) found(s proto.Slice) error {
	return l.each(s, func(i int, w []byte) error {
		if v, want := binary.LittleEndian.Uint64(w), l.mark+uint64(i)<<48; v != want {
			return fmt.Errorf("slice %d, grant %#x: word %d is %#x, want %#x: somebody else uses it", s.Slice, s.Grant, i, v, want)
		}
		return nil
	})
}
