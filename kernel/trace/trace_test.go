package trace

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/kernel/klog"
)

func TestRingKeepsTheLast(t *testing.T) {
	var r Ring
	for n := range uint64(3 * Size) {
		var got []uint64
		r.Last(5, func(e *Event) { got = append(got, e.A) })
		var want []uint64
		for i := n - min(n, 5); i < n; i++ {
			want = append(want, i)
		}
		require.Equal(t, want, got)
		r.Record(int64(n), Switch, n, 0, 0)
	}
	count := 0
	r.Last(10*Size, func(*Event) { count++ })
	require.Equal(t, Size, count)
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		e    Event
		want string
	}{
		{Event{1_234_567, 9, 0x1000, 0, Syscall}, "1234 us syscall nr=9 a=0x1000 b=0x0"},
		{Event{0, 14, 0xffffffff80200000, 8, Fault}, "0 us fault vector=14 rip=0xffffffff80200000 addr=0x8"},
		{Event{5000, 0, 0, 0, Idle}, "5 us idle"},
		{Event{5000, 1, 2, 3, 99}, "5 us kind 99"},
	} {
		var l klog.Line
		c.e.Format(&l)
		require.Equal(t, c.want, string(l.Bytes()))
	}
	for k := range numKinds {
		require.NotEmpty(t, format[k][0], "kind %d has no name", k)
	}
}

func TestNoAllocation(t *testing.T) {
	var r Ring
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Record(1, Kick, 2, 3, 4) }))
}
