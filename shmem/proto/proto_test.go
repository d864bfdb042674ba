package proto

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden file")

// each calls f with every message of the registry, by name.
func each(f func(name string, t Type, make func() Message)) {
	for t := range Types {
		info, ok := Lookup(t)
		if !ok {
			continue
		}
		f(info.Name, t, func() Message { return info.Request() })
		if info.Reply != nil {
			f(info.Name+"/reply", t, info.Reply)
		}
	}
	f("ErrorReply", 0, func() Message { return &ErrorReply{} })
}

// fill gives every field of v a value that next chooses; lists and strings get n(max) elements.
func fill(v reflect.Value, next func() uint64, n func() int) {
	switch v.Kind() {
	case reflect.Pointer:
		fill(v.Elem(), next, n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next, n)
		}
	case reflect.Bool:
		v.SetBool(next()&1 == 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(next() & (1<<(v.Type().Bits()-1)*2 - 1))
	case reflect.Int32:
		v.SetInt(int64(int32(next())))
	case reflect.Int64:
		v.SetInt(int64(next()))
	case reflect.String:
		b := make([]byte, n())
		for i := range b {
			b[i] = byte(next())
		}
		v.SetString(string(b))
	case reflect.Slice:
		k := n()
		v.Set(reflect.MakeSlice(v.Type(), k, k))
		for i := range k {
			fill(v.Index(i), next, n)
		}
	default:
		panic(fmt.Sprintf("a message has a field of %v", v.Type()))
	}
}

// TestRegistry: types are as the registry says, names are those of the Go types, and each type says its own number.
func TestRegistry(t *testing.T) {
	seen := map[reflect.Type]string{}
	for i := range Types {
		info, ok := Lookup(i)
		if !ok {
			require.Contains(t, i.String(), "type(")
			continue
		}
		req := info.Request()
		require.Equal(t, i, req.Type(), info.Name)
		require.Equal(t, "*proto."+info.Name, reflect.TypeOf(req).String())
		require.Equal(t, info.Name, i.String())
		require.Equal(t, info.Event, info.Reply == nil, "%s: events and only they have no reply", info.Name)
		require.False(t, info.Event && info.Stream, info.Name)
		require.Empty(t, seen[reflect.TypeOf(req)], info.Name)
		seen[reflect.TypeOf(req)] = info.Name
	}
	_, ok := Lookup(Types)
	require.False(t, ok)
	_, ok = Lookup(0xffff)
	require.False(t, ok)
	require.Greater(t, len(seen), 45)
}

// TestRoundTrip encodes and decodes random values of all messages. A field that its code method forgets comes back zero.
func TestRoundTrip(t *testing.T) {
	const seed = 3
	rnd := rand.New(rand.NewPCG(seed, seed))
	each(func(name string, _ Type, make func() Message) {
		used := make() // decoded into again and again
		for range 50 {
			m := make()
			fill(reflect.ValueOf(m), rnd.Uint64, func() int { return rnd.IntN(4) })
			b, err := Encode(nil, m)
			require.NoError(t, err, name)
			got := make()
			require.NoError(t, Decode(b, got), name)
			requireSame(t, name, m, got)
			require.NoError(t, Decode(b, used), name)
			again, err := Encode([]byte("x"), used)
			require.NoError(t, err)
			require.True(t, bytes.Equal(b, again[1:]), "%s: decoding into a used message", name)
			// Any other length is not the message.
			for n := range b {
				require.ErrorIs(t, Decode(b[:n], got), ErrDecode, name)
			}
			require.ErrorIs(t, Decode(append(b, 0), got), ErrDecode, name)
		}
	})
}

// requireSame compares but for nil and empty lists, which are the same in a message.
func requireSame(t *testing.T, name string, want, got Message) {
	t.Helper()
	require.Equal(t, strings.ReplaceAll(fmt.Sprintf("%#v", want), "(nil)", "{}"), strings.ReplaceAll(fmt.Sprintf("%#v", got), "(nil)", "{}"), name)
}

// TestGoldenBytes pins numbers and encoding: whoever changes a line (rather than adding one) raises Version.
func TestGoldenBytes(t *testing.T) {
	var b strings.Builder
	each(func(name string, typ Type, make func() Message) {
		m := make()
		i := uint64(0)
		fill(reflect.ValueOf(m), func() uint64 { i++; return i*0x0101010101010101 | 0x60 }, func() int { return 2 })
		e, err := Encode(nil, m)
		require.NoError(t, err)
		fmt.Fprintf(&b, "%d %s %s\n", typ, name, hex.EncodeToString(e))
	})
	var head [FrameBytes]byte
	(&Frame{KindCall, TypeOpen, 0x11223344, 0x123456789abcdef0, 7, 9}).Put(&head)
	fmt.Fprintf(&b, "frame %s\n", hex.EncodeToString(head[:]))
	if *rewrite {
		require.NoError(t, os.WriteFile("testdata/wire.golden", []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile("testdata/wire.golden")
	require.NoError(t, err, "go test -rewrite makes it")
	require.Equal(t, string(want), b.String())
}

func TestLimits(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for want, m := range map[string]Message{
		"*proto.Open: a field longer":          &Open{Path: long(MaxPath + 1)},
		"*proto.Write: a field longer":         &Write{Data: make([]byte, MaxData+1)},
		"*proto.Run: a field longer":           &Run{Args: []string{"a", long(MaxArg + 1)}},
		"*proto.ReleaseSlices: a field longer": &ReleaseSlices{Slices: make([]Slice, MaxList+1)},
		"*proto.CreateProcess: 410042 bytes":   &CreateProcess{Args: slicesOf(long(MaxArg), 100)},
	} {
		b, err := Encode([]byte("kept"), m)
		require.ErrorIs(t, err, ErrEncode)
		require.ErrorContains(t, err, want)
		require.Equal(t, "kept", string(b))
	}
	// A list that says it is long and is not takes no memory.
	m := &ReleaseSlices{}
	require.ErrorIs(t, Decode([]byte{0, 4, 0, 0, 1}, m), ErrDecode)
	require.Less(t, cap(m.Slices), 4)
	require.ErrorIs(t, Decode([]byte{0xff, 0xff, 0xff, 0xff}, &Null{}), ErrDecode)
	require.ErrorIs(t, Decode([]byte{0, 0, 0, 0, 2}, &Shutdown{}), ErrDecode, "a bool is 0 or 1")
}

func slicesOf(s string, n int) []string {
	v := make([]string, n)
	for i := range v {
		v[i] = s
	}
	return v
}

func TestFrame(t *testing.T) {
	f := Frame{KindData, TypeConsole, 5, 1 << 63, 2, 3}
	var b [FrameBytes]byte
	f.Put(&b)
	got, rest, err := ParseFrame(append(b[:], 1, 2))
	require.NoError(t, err)
	require.Equal(t, f, got)
	require.Equal(t, []byte{1, 2}, rest)
	_, _, err = ParseFrame(b[:23])
	require.ErrorContains(t, err, "23 bytes, a frame takes 24")
	b[0]++
	_, _, err = ParseFrame(b[:])
	require.ErrorContains(t, err, "protocol version 2, want 1")
	b[0]--
	for _, k := range []byte{0, byte(kinds), 255} {
		b[1] = k
		_, _, err = ParseFrame(b[:])
		require.ErrorIs(t, err, ErrDecode)
	}
	for k := range kinds {
		require.NotEmpty(t, k.String())
	}
	for c := range codes {
		require.NotContains(t, c.String(), "code(")
	}
}

// FuzzDecode decodes any bytes as any message. What decodes encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	var makers []func() Message
	each(func(_ string, _ Type, make func() Message) { makers = append(makers, make) })
	for i, make := range makers {
		m := make()
		n := uint64(0)
		fill(reflect.ValueOf(m), func() uint64 { n++; return n }, func() int { return 1 })
		b, err := Encode(nil, m)
		require.NoError(f, err)
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		m := makers[int(i)%len(makers)]()
		if err := Decode(b, m); err != nil {
			require.ErrorIs(t, err, ErrDecode)
			return
		}
		again, err := Encode(nil, m)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, again))
		_, _, _ = ParseFrame(b)
	})
}

// TestFlips decodes valid messages with bits flipped: the quick part of FuzzDecode that runs every time.
func TestFlips(t *testing.T) {
	const seed = 8
	rnd := rand.New(rand.NewPCG(seed, seed))
	each(func(name string, _ Type, make func() Message) {
		for range 100 {
			m := make()
			fill(reflect.ValueOf(m), rnd.Uint64, func() int { return rnd.IntN(3) })
			b, err := Encode(nil, m)
			require.NoError(t, err)
			for range min(len(b), 3) {
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			}
			if err := Decode(b, m); err != nil {
				require.ErrorIs(t, err, ErrDecode, name)
				continue
			}
			again, err := Encode(nil, m)
			require.NoError(t, err)
			require.True(t, bytes.Equal(b, again), name)
		}
	})
}

func BenchmarkEncodeDecode(b *testing.B) {
	m, got := &RequestSlices{Want: Want{Process: 3}, Min: 1, Max: 8}, &RequestSlices{}
	buf := make([]byte, 0, 256)
	var k Coder
	b.ReportAllocs()
	for range b.N {
		e, err := k.Encode(buf[:0], m)
		if err == nil {
			err = k.Decode(e, got)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
