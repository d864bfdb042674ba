package testproto

import (
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestExit(t *testing.T) {
	for e, status := range map[Exit]int{ExitPass: 33, ExitFail: 35, ExitCrash: 37, ExitRefused: 39, ExitFenced: 41} {
		require.Equal(t, status, e.Status())
		got, ok := FromStatus(status)
		require.True(t, ok)
		require.Equal(t, e, got)
		require.NotContains(t, e.String(), "unknown")
	}
	for _, status := range []int{0, 1, 2, 34, 256, 257, -1} {
		_, ok := FromStatus(status)
		require.False(t, ok, "%d", status)
	}
	require.Equal(t, "unknown exit 0x5f", Exit(0x5f).String())
}

func TestEventRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Event{
			Test:  rapid.StringMatching(`[a-z/]{1,20}`).Draw(t, "test"),
			Event: rapid.SampledFrom([]string{Run, Pass, Fail, Skip}).Draw(t, "event"),
			MS:    rapid.Float64Range(0, 1e6).Draw(t, "ms"),
			Msg:   strings.ToValidUTF8(rapid.String().Draw(t, "msg"), "?"),
		}
		line := e.Line()
		require.NotContains(t, line, "\n")
		got, ok, err := Parse("log without end " + line)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, e, got)
	})
	require.Equal(t, `##dinos-test {"event":"done","pass":2,"fail":1}`, Event{Event: Done, Passed: 2, Failed: 1}.Line())
	require.Equal(t, `##dinos-test {"test":"a","event":"pass","ms":1.5,"msg":"x"}`, Event{Test: "a", Event: Pass, MS: 1.5, Msg: "x"}.Line())
	require.NotContains(t, Event{Event: Done, MS: math.NaN()}.Line(), "ms")
	long := Event{Test: "a", Event: Fail, Msg: strings.Repeat("x", 1<<20)}.Line()
	require.Less(t, len(long), maxMsg+200)
	require.Contains(t, long, "bytes ...")
}

func TestParseMalformed(t *testing.T) {
	_, ok, err := Parse("an ordinary line")
	require.NoError(t, err)
	require.False(t, ok)
	for line, want := range map[string]string{
		Prefix:                                 "unexpected end",
		Prefix + `{`:                           "unexpected end",
		Prefix + `{"event":"run"}`:             "names no test",
		Prefix + `{"test":"a","event":"?"}`:    "want event run",
		Prefix + `{"test":"a","event":"done"}`: "want no test",
		Prefix + `{"event":"done","fail":-1}`:  "counts of at least 0",
		Prefix + `{"event":1}`:                 "cannot unmarshal",
		Prefix + `{"event":"done"} more`:       "after top-level value",
	} {
		_, ok, err := Parse(line)
		require.True(t, ok)
		require.ErrorContains(t, err, want, line)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Prefix + `{"event":"done","pass":1}`)
	f.Fuzz(func(t *testing.T, line string) {
		e, ok, err := Parse(line)
		if ok && err == nil {
			again, ok, err := Parse(e.Line())
			require.True(t, ok)
			require.NoError(t, err)
			require.Equal(t, e.Event, again.Event)
		}
	})
}

func TestSelect(t *testing.T) {
	all := []string{"a", "b/c", "d"}
	got, err := Select("all", all)
	require.NoError(t, err)
	require.Equal(t, all, got)
	got, err = Select("d,a", all)
	require.NoError(t, err)
	require.Equal(t, []string{"d", "a"}, got)
	for value, want := range map[string]string{
		"": "empty name", "a,": "empty name", "x": `no test "x"; there are a, b/c, d`, "a,a": "given twice",
	} {
		_, err := Select(value, all)
		require.ErrorContains(t, err, want, "%q", value)
	}
}

// runner returns a Runner with a clock that advances 1.5 ms at each look, and the lines that it prints.
func runner(tests ...Test) (*Runner, *[]string) {
	var lines []string
	var now time.Duration
	return &Runner{
		Tests: tests,
		Print: func(s string) { lines = append(lines, s) },
		Now:   func() time.Duration { now += 1500 * time.Microsecond; return now },
	}, &lines
}

func TestRunner(t *testing.T) {
	ran := false
	r, lines := runner(
		Test{"ok", func(t *T) { t.Logf("n=%d", 1) }},
		Test{"bad", func(t *T) { require.Equal(t, 1, 2) }},
		Test{"soft", func(t *T) { t.Errorf("one"); t.Errorf("two"); ran = true }},
		Test{"fatal", func(t *T) { t.Fatalf("stop"); panic("not reached") }},
		Test{"skip", func(t *T) { t.Skipf("no device") }},
		Test{"panic", func(t *T) { panic("boo") }},
		Test{"exit", func(t *T) { runtime.Goexit() }},
		Test{"nil", func(t *T) { panic(nil) }},
	)
	e, err := r.Run(All)
	require.NoError(t, err)
	require.Equal(t, ExitFail, e)
	require.True(t, ran, "Errorf must not end the test")
	var got []Event
	for _, line := range *lines {
		e, ok, err := Parse(line)
		require.True(t, ok)
		require.NoError(t, err)
		got = append(got, e)
	}
	require.Len(t, got, 17)
	for i, want := range []struct{ name, kind, msg string }{
		{"ok", Pass, "n=1"}, {"bad", Fail, "Not equal"}, {"soft", Fail, "one\ntwo"}, {"fatal", Fail, "stop"}, {"skip", Skip, "no device"},
		{"panic", Fail, "panic: boo"}, {"exit", Fail, "runtime.Goexit"}, {"nil", Fail, "panic"},
	} {
		require.Equal(t, Event{Test: want.name, Event: Run}, got[2*i])
		end := got[2*i+1]
		require.Equal(t, want.name, end.Test)
		require.Equal(t, want.kind, end.Event)
		require.Contains(t, end.Msg, want.msg)
		require.Equal(t, 1.5, end.MS)
	}
	require.Equal(t, Event{Event: Done, Passed: 1, Failed: 6, Skipped: 1}, got[16])

	*lines = nil
	e, err = r.Run("ok,skip")
	require.NoError(t, err)
	require.Equal(t, ExitPass, e)
	require.Len(t, *lines, 5)
}

func TestRunnerRefuses(t *testing.T) {
	r, lines := runner(Test{"a", nil})
	_, err := r.Run("b")
	require.ErrorContains(t, err, `no test "b"`)
	for _, name := range []string{"", "a", "x y", "x,y", `x"`} {
		r, _ := runner(Test{"a", nil}, Test{name, nil})
		e, err := r.Run(All)
		require.ErrorContains(t, err, "test table")
		require.Equal(t, ExitFail, e)
	}
	require.Empty(t, *lines)
}
