// Package rpcbench measures RPCs between kernels, from inside one of them: null calls while both ends are awake, calls that
// wake the peer, and calls in a pipeline. The host says what to run and when, through two mailbox words of the
// kernel's machine block, so that several kernels start together; results are lines as of package rtbench.
package rpcbench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"dinos/kernel/rtbench"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/rpc"
)

// Words of the mailbox: the host stores a Command, the kernel stores it to the other word when it is done with it.
const (
	MailCommand = layout.MailboxWords - 2
	MailDone    = layout.MailboxWords - 1
)

// Kind is a benchmark.
type Kind uint8

// The kinds, with the meaning of a command's argument.
const (
	// Awake: that many null calls, one after the other.
	Awake Kind = 1 + iota
	// Halted: that many null calls with a pause of Pause before each, in which both kernels halt.
	Halted
	// Pipelined: null calls for that many milliseconds, Depth of them under way.
	Pipelined
)

// Pause before each call of Halted, and Depth of Pipelined. A call that takes longer than patience has failed.
const (
	Pause    = 3 * time.Millisecond
	Depth    = 128
	patience = 2 * time.Second
)

func (k Kind) String() string {
	if k >= Awake && k <= Pipelined {
		return [...]string{"awake", "halted", "pipelined"}[k-Awake]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Command is what to run: a number that differs from the last command's, a kind and its argument.
type Command struct {
	Sequence uint16
	Kind     Kind
	Arg      uint32
}

// Word is c as a word. It is not 0 if the kind is valid.
func (c Command) Word() uint64 {
	return uint64(c.Sequence)<<48 | uint64(c.Kind)<<32 | uint64(c.Arg)
}

// Name is that of c's result.
func (c Command) Name() string { return fmt.Sprintf("rpc-%v-%d", c.Kind, c.Sequence) }

func command(w uint64) Command { return Command{uint16(w >> 48), Kind(w >> 32), uint32(w)} }

// Bench is one end of the benchmark.
type Bench struct {
	Conn  func() (*rpc.Conn, error) // to the ckernel
	Me    *layout.Machine
	Clock rpc.Clock
	Out   io.Writer
	CPUs  int
}

// Run runs what the host asks for until ctx is done. What fails, because a connection was lost, it says and runs again.
func (b *Bench) Run(ctx context.Context) error {
	last := b.Me.Mailbox[MailDone].Load() // a command may be there already
	for ctx.Err() == nil {
		w := b.Me.Mailbox[MailCommand].Load()
		if w == last {
			time.Sleep(time.Millisecond)
			continue
		}
		last = w
		for {
			err := b.run(ctx, command(w))
			if err == nil || ctx.Err() != nil {
				break
			}
			fmt.Fprintf(b.Out, "rpcbench: %v: %v\n", command(w).Name(), err)
			time.Sleep(10 * time.Millisecond)
		}
		b.Me.Mailbox[MailDone].Store(w)
	}
	return ctx.Err()
}

// conn waits for the connection, and for the peer to answer: what it was asked before it came up is lost.
func (b *Bench) conn(ctx context.Context) (*rpc.Conn, error) {
	for {
		c, err := b.Conn()
		if err == nil {
			err = c.Call(ctx, &proto.Null{}, &proto.NullReply{}, 200*time.Millisecond)
		}
		if err == nil || ctx.Err() != nil {
			return c, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (b *Bench) run(ctx context.Context, c Command) error {
	conn, err := b.conn(ctx)
	if err != nil {
		return err
	}
	if c.Arg == 0 || c.Kind < Awake || c.Kind > Pipelined {
		// Not repeated: it would fail again.
		fmt.Fprintf(b.Out, "rpcbench: command %#x, want a kind from %d to %d and an argument\n", c.Word(), Awake, Pipelined)
		return nil
	}
	r := rtbench.Result{Name: c.Name(), Unit: "ns", CPUs: b.CPUs}
	var took []int64
	switch c.Kind {
	case Awake:
		took, err = b.calls(ctx, conn, int(c.Arg), 0)
	case Halted:
		took, err = b.calls(ctx, conn, int(c.Arg), Pause)
	default:
		return b.pipeline(ctx, conn, &r, time.Duration(c.Arg)*time.Millisecond)
	}
	if err != nil {
		return err
	}
	slices.Sort(took)
	at := func(percent int) float64 { return float64(took[(len(took)-1)*percent/100]) }
	r.Min, r.P50, r.P99, r.N = at(0), at(50), at(99), len(took)
	return b.report(&r)
}

// calls makes n null calls, each after a pause, and returns how long each took in ns. A tenth more come before those that count.
func (b *Bench) calls(ctx context.Context, conn *rpc.Conn, n int, pause time.Duration) ([]int64, error) {
	var q proto.Null
	var a proto.NullReply
	took := make([]int64, 0, n)
	for i := -n / 10; i < n; i++ {
		if pause > 0 {
			time.Sleep(pause)
		}
		start := b.Clock.Now()
		if err := conn.Call(ctx, &q, &a, patience); err != nil {
			return nil, err
		}
		if d := b.Clock.Now() - start; i >= 0 {
			took = append(took, d)
		}
	}
	return took, nil
}

// pipeline keeps Depth calls under way for d. The result is the time per call: as a mean in all of the time, and the quantiles
// over batches.
func (b *Bench) pipeline(ctx context.Context, conn *rpc.Conn, r *rtbench.Result, d time.Duration) error {
	const batch = 1024
	var q proto.Null
	var a [Depth]proto.NullReply
	var p [Depth]rpc.Pending
	var took []float64
	n := 0
	start := b.Clock.Now()
	mark, end := start, start+int64(d)
	for more := true; more; n++ {
		i := n % Depth
		if n >= Depth {
			if err := p[i].Wait(ctx); err != nil {
				return err
			}
		}
		var err error
		if p[i], err = conn.Start(ctx, &q, &a[i], patience); err != nil {
			return err
		}
		if n%batch == batch-1 {
			now := b.Clock.Now()
			took = append(took, float64(now-mark)/batch)
			mark, more = now, now < end
		}
	}
	total := float64(mark-start) / float64(n)
	for i := range min(n, Depth) {
		if err := p[(n+i)%Depth].Wait(ctx); err != nil {
			return err
		}
	}
	slices.Sort(took)
	at := func(percent int) float64 { return took[(len(took)-1)*percent/100] }
	r.Min, r.P50, r.P99, r.N = at(0), at(50), at(99), n
	if err := b.report(r); err != nil {
		return err
	}
	r.Name += "-mean"
	r.Min, r.P50, r.P99 = total, total, total
	return b.report(r)
}

func (b *Bench) report(r *rtbench.Result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = b.Out.Write([]byte(rtbench.Prefix + string(line) + "\n"))
	return err
}

// Ask stores a command for the machine m.
func Ask(m *layout.Machine, c Command) { m.Mailbox[MailCommand].Store(c.Word()) }

// Done reports whether m is done with c.
func Done(m *layout.Machine, c Command) bool { return m.Mailbox[MailDone].Load() == c.Word() }
