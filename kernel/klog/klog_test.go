package klog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64().Draw(t, "v") >> rapid.IntRange(0, 63).Draw(t, "shift")
		var l Line
		l.Dec(v).Byte(' ').Hex(v).Byte(' ').Hex64(v).Byte(' ').Int(int64(v)).Byte(' ').Hex8(uint8(v))
		require.Equal(t, fmt.Sprintf("%d %#x %016x %d %02x", v, v, v, int64(v), uint8(v)), string(l.Bytes()))
	})
}

func TestSize(t *testing.T) {
	for v, want := range map[uint64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1 KiB", 1025: "1025 B", 3 << 20: "3 MiB", 1 << 40: "1 TiB", 1 << 50: "1024 TiB",
	} {
		var l Line
		require.Equal(t, want, string(l.Size(v).Bytes()))
	}
}

func TestLongLineIsMarked(t *testing.T) {
	var l Line
	l.Str(strings.Repeat("x", 1000))
	require.Len(t, l.Bytes(), len(l.buf))
	require.True(t, strings.HasSuffix(string(l.Bytes()), "..."))
	require.Empty(t, l.Reset().Bytes())
}

func TestNoAllocation(t *testing.T) {
	var l Line
	require.Zero(t, testing.AllocsPerRun(100, func() { l.Reset().Str("a").Dec(12345).Hex(1 << 63).Int(-1).Size(4096) }))
}
