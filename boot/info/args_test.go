package info

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseArgs(t *testing.T) {
	a, err := ParseArgs("  test=a,b\tquiet name=\"two \\\"words\\\" \\\\\" mix=a\"b c\"d empty= a.b-c_1=x=y ")
	require.NoError(t, err)
	require.Equal(t, []string{"test", "quiet", "name", "mix", "empty", "a.b-c_1"}, a.Keys())
	for key, want := range map[string]string{"test": "a,b", "name": `two "words" \`, "mix": "ab cd", "empty": "", "a.b-c_1": "x=y", "none": "default"} {
		got, err := a.String(key, "default")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err = a.String("quiet", "")
	require.EqualError(t, err, "command line: quiet: needs a value: quiet=...")
	require.True(t, a.Has("quiet"))
	require.False(t, a.Has("none"))
	require.NoError(t, a.Known("test", "quiet", "name", "mix", "empty", "a.b-c_1", "more"))
	require.EqualError(t, a.Known("test", "quiet"), "command line: name: unknown key; known are quiet, test")

	a, err = ParseArgs("")
	require.NoError(t, err)
	require.Empty(t, a.Keys())
}

func TestParseArgsMalformed(t *testing.T) {
	for line, want := range map[string]string{
		"a=1 b=\"x":                  `byte 6: b: quote is not closed`,
		"=x":                         `byte 0: a key cannot start with '='`,
		"\"a\"=1":                    `byte 0: a key cannot start with '"'`,
		"a:1":                        `byte 1: a: ':' after the key: want a space or =`,
		"a=1 b=2 a=3":                `byte 8: a: given twice`,
		"a=\x01":                     `byte 2: control character 0x01`,
		"a\x00b":                     `byte 1: control character 0x00`,
		"a=1\nb=2":                   `byte 3: control character 0x0a`,
		`a=x\y`:                      `byte 3: a: stray backslash`,
		`a="x\y"`:                    `byte 4: a: stray backslash`,
		`a="x\`:                      `stray backslash`,
		"é=1":                        `byte 0: a key cannot start with`,
		strings.Repeat("k", 65):      `key of 65 bytes, want at most 64`,
		strings.Repeat("a ", 2):      `byte 2: a: given twice`,
		"ok " + string([]byte{0xff}): `byte 3: a key cannot start with`,
	} {
		_, err := ParseArgs(line)
		require.ErrorContains(t, err, want, "%q", line)
		var e *ArgError
		require.ErrorAs(t, err, &e)
	}
}

func TestTypedArgs(t *testing.T) {
	a, err := ParseArgs("n=0x10 big=18446744073709551616 s=16M huge=16777216T b d=1.5s neg=-1s on=on off=off text=x neg1=-1")
	require.NoError(t, err)

	n, err := a.Uint("n", 1, 0, 100)
	require.NoError(t, err)
	require.Equal(t, uint64(16), n)
	n, err = a.Uint("none", 7, 0, 1)
	require.NoError(t, err)
	require.Equal(t, uint64(7), n)
	for _, key := range []string{"big", "text", "neg1", "b", "s"} {
		_, err = a.Uint(key, 0, 0, 100)
		require.ErrorContains(t, err, "command line: "+key)
	}
	_, err = a.Uint("n", 0, 17, 20)
	require.EqualError(t, err, `command line: n: "0x10", want a number from 17 to 20`)

	n, err = a.Size("s", 0, 0, 1<<40)
	require.NoError(t, err)
	require.Equal(t, uint64(16<<20), n)
	for _, key := range []string{"huge", "text", "d"} {
		_, err = a.Size(key, 0, 0, 1<<63)
		require.ErrorContains(t, err, "with K, M, G or T")
	}

	for key, want := range map[string]bool{"b": true, "on": true, "off": false, "none": false} {
		got, err := a.Bool(key)
		require.NoError(t, err)
		require.Equal(t, want, got, key)
	}
	_, err = a.Bool("n")
	require.ErrorContains(t, err, `"0x10", want 1, true`)

	d, err := a.Duration("d", 0)
	require.NoError(t, err)
	require.Equal(t, 1500*time.Millisecond, d)
	d, err = a.Duration("none", time.Hour)
	require.NoError(t, err)
	require.Equal(t, time.Hour, d)
	for _, key := range []string{"neg", "n", "b"} {
		_, err = a.Duration(key, 0)
		require.Error(t, err)
	}
}

// TestQuotedRoundTrip: any text without control characters can be a value.
func TestQuotedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.StringMatching(`[ -~é]*`).Draw(t, "value")
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(want) + `"`
		a, err := ParseArgs("first k=" + quoted + " last=1")
		require.NoError(t, err)
		got, err := a.String("k", "")
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func FuzzParseArgs(f *testing.F) {
	f.Add(`test=all seed=0x12 name="a \"b\""`)
	f.Add("a=\"")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := ParseArgs(line)
		if err != nil {
			var e *ArgError
			require.ErrorAs(t, err, &e)
			return
		}
		require.NoError(t, a.Known(a.Keys()...))
		for _, k := range a.Keys() {
			require.True(t, a.Has(k))
		}
	})
}
