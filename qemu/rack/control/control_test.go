package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const patience = 20 * time.Second

// serve starts a server and returns its socket.
func serve(t *testing.T, handlers map[string]Handler) string {
	dir, err := os.MkdirTemp("", "dctl")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "control")
	s, err := Listen(path, handlers)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	return path
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestCall(t *testing.T) {
	type words struct{ A, B string }
	path := serve(t, map[string]Handler{
		"join": func(_ context.Context, s *Session) (any, error) {
			var w words
			if err := s.Args(&w); err != nil {
				return nil, err
			}
			return w.A + w.B, nil
		},
		"fail": func(context.Context, *Session) (any, error) { return nil, Errorf(CodeNotFound, "no dkernel9") },
		"wrap": func(context.Context, *Session) (any, error) {
			return nil, fmt.Errorf("kill: %w", Errorf(CodeGuest, "x"))
		},
		"plain":  func(context.Context, *Session) (any, error) { return nil, errors.New("plain") },
		"panic":  func(context.Context, *Session) (any, error) { panic("oops") },
		"large":  func(context.Context, *Session) (any, error) { return strings.Repeat("x", MaxFrame*3-2), nil },
		"huge":   func(context.Context, *Session) (any, error) { return strings.Repeat("x", MaxJSON), nil },
		"nojson": func(context.Context, *Session) (any, error) { return func() {}, nil },
	})
	call := func(name string, args, result any) error { return Call(within(t), path, name, args, result) }
	var got string
	require.NoError(t, call("join", words{"a", "b"}, &got))
	require.Equal(t, "ab", got)
	require.NoError(t, call("large", nil, &got))
	require.Len(t, got, MaxFrame*3-2)
	for name, want := range map[string]*Error{
		"fail": {CodeNotFound, "no dkernel9"}, "wrap": {CodeGuest, "kill: x"}, "plain": {CodeHost, "plain"},
		"none": {CodeUsage, `unknown command "none"`},
	} {
		var e *Error
		require.ErrorAs(t, call(name, nil, nil), &e, name)
		require.Equal(t, want, e)
	}
	require.ErrorContains(t, call("panic", nil, nil), "panicked: oops")
	require.ErrorContains(t, call("huge", nil, nil), "want at most")
	require.ErrorContains(t, call("nojson", nil, nil), "unsupported type")
	require.ErrorContains(t, call("join", 5, nil), "arguments: json")
	require.ErrorContains(t, call("join", strings.Repeat("x", MaxRequest), nil), "want less than")
	require.ErrorIs(t, call("join", words{}, &struct{ X int }{}), ErrProtocol, "the result is something else")
	require.NoError(t, call("join", words{"still", " there"}, nil))
	require.ErrorIs(t, Call(within(t), path+"x", "join", nil, nil), ErrNoServer)
}

// TestStreams: standard streams, each at its own pace, and events between them.
func TestStreams(t *testing.T) {
	path := serve(t, map[string]Handler{"upper": func(ctx context.Context, s *Session) (any, error) {
		e, err := s.NextEvent(ctx)
		if err != nil {
			return nil, err
		}
		var size Resize
		if err := json.Unmarshal(e.Data, &size); err != nil {
			return nil, err
		}
		s.Event("sized", size)
		n := 0
		var wg sync.WaitGroup
		wg.Go(func() { s.Channel(FirstFree).Write(bytes.Repeat([]byte{'e'}, 3*Window)) })
		b, err := io.ReadAll(s.Channel(Stdin))
		n = len(b)
		if err == nil {
			_, err = s.Channel(Stdout).Write(bytes.ToUpper(b))
		}
		s.Channel(Stdout).CloseWrite()
		wg.Wait()
		return n, err
	}})
	c, err := Open(within(t), path, "upper", nil)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Event("resize", Resize{24, 80}))
	e, err := c.NextEvent()
	require.NoError(t, err)
	require.Equal(t, `{"rows":24,"columns":80}`, string(e.Data))
	in := bytes.Repeat([]byte("abc"), Window)
	go func() {
		c.Channel(Stdin).Write(in)
		c.Channel(Stdin).CloseWrite()
		c.Channel(Stdin).CloseWrite()
	}()
	out, err := io.ReadAll(c.Channel(Stdout))
	require.NoError(t, err)
	require.Equal(t, bytes.ToUpper(in), out)
	// It was full all the time, and held up nothing. It has no end of its own: the result is one.
	extra, err := io.ReadAll(c.Channel(FirstFree))
	require.NoError(t, err)
	require.Len(t, extra, 3*Window)
	var n int
	require.NoError(t, c.Wait(&n))
	require.Equal(t, len(in), n)
	_, err = c.NextEvent()
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.Channel(Stdin).Write([]byte("x"))
	require.ErrorIs(t, err, io.ErrClosedPipe)
	_, err = c.Channel(Stderr).Write([]byte("x"))
	require.ErrorIs(t, err, ErrClosed)
}

// TestCancel: a client that goes away ends its command; so does a closing server, and who waits hears of it.
func TestCancel(t *testing.T) {
	started, ended := make(chan bool), make(chan error, 4)
	block := func(ctx context.Context, s *Session) (any, error) {
		started <- true
		<-ctx.Done()
		_, err := s.Channel(Stdin).Read(make([]byte, 1))
		ended <- err
		return nil, ctx.Err()
	}
	path := serve(t, map[string]Handler{"block": block})
	ctx, cancel := context.WithCancel(within(t))
	c, err := Open(ctx, path, "block", nil)
	require.NoError(t, err)
	<-started
	cancel()
	require.ErrorIs(t, c.Wait(nil), ErrClosed)
	require.ErrorIs(t, c.Wait(nil), context.Canceled)
	require.ErrorIs(t, <-ended, ErrClosed)
	c.Close()

	dir := filepath.Dir(path)
	s, err := Listen(filepath.Join(dir, "two"), map[string]Handler{"wait": func(ctx context.Context, _ *Session) (any, error) {
		started <- true
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	require.NoError(t, err)
	idle, err := net.Dial("unix", filepath.Join(dir, "two")) // says nothing
	require.NoError(t, err)
	defer idle.Close()
	c, err = Open(within(t), filepath.Join(dir, "two"), "wait", nil)
	require.NoError(t, err)
	defer c.Close()
	<-started
	s.Close()
	var e *Error
	require.ErrorAs(t, c.Wait(nil), &e)
	require.Equal(t, CodeCanceled, e.Code)
	require.NoFileExists(t, filepath.Join(dir, "two"))
}

// TestBadClients: whatever they send, the server goes on, and answers the next one.
func TestBadClients(t *testing.T) {
	path := serve(t, map[string]Handler{"read": func(ctx context.Context, s *Session) (any, error) {
		b, err := io.ReadAll(s.Channel(Stdin))
		return len(b), err
	}})
	ask := func(b []byte) string {
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		go conn.Write(b)
		r := bufio.NewReader(conn)
		head := make([]byte, headBytes)
		if _, err := io.ReadFull(r, head); err != nil {
			return ""
		}
		answer, _ := r.ReadString('}')
		return answer
	}
	good := `{"version":1,"command":"read"}` + "\n"
	require.Contains(t, ask([]byte("hello\n")), "request: invalid character")
	require.Contains(t, ask([]byte(`{"version":9}`+"\n")), "protocol version 9")
	require.Contains(t, ask(bytes.Repeat([]byte("x"), MaxRequest*2)), "more than")
	for name, frame := range map[string]string{
		"kind 0": "\x00\x00\x00\x00\x00\x00\x00\x00", "kind 9": "\x09\x00\x00\x00\x00\x00\x00\x00",
		"reserved bytes": "\x01\x00\x01\x00\x01\x00\x00\x00x", "too long": "\x01\x00\x00\x00\x01\x00\x01\x00",
		"empty data": "\x01\x00\x00\x00\x00\x00\x00\x00", "data after end": "\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00x",
		"much credit": "\x03\x01\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00", "short credit": "\x03\x00\x00\x00\x01\x00\x00\x00\x01",
		"event": "\x04\x00\x00\x00\x01\x00\x00\x00{",
	} {
		if name == "data after end" {
			// The handler is through with its input: only the connection suffers.
			require.NotPanics(t, func() { ask([]byte(good + frame)) })
			continue
		}
		require.Empty(t, ask([]byte(good+frame)), "%s: the connection is cut", name)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		junk := make([]byte, rng.IntN(300))
		for i := range junk {
			junk[i] = byte(rng.IntN(8))
		}
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		conn.Write(append([]byte(good), junk...))
		conn.Close()
	}
	c, err := Open(within(t), path, "read", nil)
	require.NoError(t, err)
	defer c.Close()
	c.Channel(Stdin).Write([]byte("abc"))
	c.Channel(Stdin).CloseWrite()
	var n int
	require.NoError(t, c.Wait(&n))
	require.Equal(t, 3, n)
}

// TestBadServer: a client meets no better luck with a server that breaks the rules, but an error.
func TestBadServer(t *testing.T) {
	for name, c := range map[string]struct{ say, want string }{
		"nothing":  {"", "connection closed"},
		"half":     {"\x05\x00\x00\x00\x09\x00\x00\x00{", "connection closed"},
		"no JSON":  {"\x05\x00\x00\x00\x01\x00\x00\x00{", "protocol error: result"},
		"bad kind": {"\x07\x00\x00\x00\x00\x00\x00\x00", "protocol error: frame of kind 7"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "s")
		l, err := net.Listen("unix", path)
		require.NoError(t, err)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				bufio.NewReader(conn).ReadString('\n')
				io.WriteString(conn, c.say)
				conn.Close()
			}
		}()
		require.ErrorContains(t, Call(within(t), path, "x", nil, nil), c.want, name)
		l.Close()
	}
}
