package rpc

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/shmem/proto"
)

// BenchmarkNull is a call and its answer between two kernels of one process, one call at a time.
func BenchmarkNull(b *testing.B) {
	r := newRack(b, 64<<10)
	r.boot(0, 1, echo())
	c := r.boot(1, 0, nil).conn
	q, a := &proto.Null{}, &proto.NullReply{}
	b.ReportAllocs()
	for range b.N {
		if err := c.Call(bg, q, a, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(r.rung[0].Load()+r.rung[1].Load())/float64(b.N), "doorbells/op")
}

// BenchmarkNullPipelined has 64 calls under way from one goroutine.
func BenchmarkNullPipelined(b *testing.B) {
	r := newRack(b, 64<<10)
	r.boot(0, 1, echo())
	c := r.boot(1, 0, nil).conn
	const depth = 64
	q := &proto.Null{}
	var a [depth]proto.NullReply
	var p [depth]Pending
	b.ReportAllocs()
	wait := func(i int) {
		if err := p[i%depth].Wait(bg); err != nil {
			b.Fatal(err)
		}
	}
	for i := range b.N {
		if i >= depth {
			wait(i)
		}
		var err error
		if p[i%depth], err = c.Start(bg, q, &a[i%depth], 0); err != nil {
			b.Fatal(err)
		}
	}
	for i := max(b.N-depth, 0); i < b.N; i++ {
		wait(i)
	}
}

// BenchmarkStream moves bytes there and back.
func BenchmarkStream(b *testing.B) {
	r := newRack(b, 256<<10)
	r.boot(0, 1, echo())
	c := r.boot(1, 0, nil).conn
	s, err := c.Open(bg, &proto.Stdio{}, &proto.StdioReply{}, 0)
	require.NoError(b, err)
	buf, in := make([]byte, 16<<10), make([]byte, 16<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for range b.N {
		if _, err := s.Write(buf); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < len(buf); {
			k, err := s.Read(in)
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
}
