package rack

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/qemu/rack/control"
)

// served is a rack of fakes behind its socket.
func served(t *testing.T, edit func(*Config)) *Remote {
	r := up(t, newFleet(), edit)
	srv, _, err := r.Serve()
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	c, err := Connect(r.cfg.Base, "test")
	require.NoError(t, err)
	return c
}

// TestRun: a program's streams, signals, size of terminal and status pass through launcher and rings.
func TestRun(t *testing.T) {
	c := served(t, func(cfg *Config) { cfg.Share = t.TempDir() })
	p, err := c.Run(within(t), &Program{Path: "/bin/cat", Args: []string{"cat", "-u"}, Dir: "/tmp", Kernel: "dkernel2"})
	require.NoError(t, err)
	defer p.Close()
	require.Equal(t, Ended{PID: fakePID, Home: 2}, p.Started)
	in := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16) // more than all windows on the way
	go func() {
		p.Stdin.Write(in)
		p.Signal(syscall.SIGINT)
		p.Resize(40, 132)
	}()
	out := bufio.NewReader(p.Stdout)
	first, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "[\"cat\" \"-u\"] in \"/tmp\" on 2\n", first)
	got := make([]byte, len(in))
	_, err = io.ReadFull(out, got)
	require.NoError(t, err)
	require.Equal(t, in, got)
	diag := bufio.NewReader(p.Stderr)
	lines := map[string]bool{}
	for range 2 {
		line, err := diag.ReadString('\n')
		require.NoError(t, err)
		lines[line] = true
	}
	require.Equal(t, map[string]bool{"signal 2 to 7\n": true, "40 rows, 132 columns\n": true}, lines)
	require.NoError(t, p.Stdin.CloseWrite())
	rest, err := io.ReadAll(out)
	require.NoError(t, err)
	require.Empty(t, rest)
	e, err := p.Wait()
	require.NoError(t, err)
	require.True(t, e.Status.Exited())
	require.Equal(t, 3, e.Status.ExitStatus())
}

func TestRunFails(t *testing.T) {
	c := served(t, nil)
	_, err := c.Run(within(t), &Program{Path: "/none"})
	var e *control.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, control.CodeNotFound, e.Code)
	require.ErrorContains(t, err, "/none: no such file or directory")
	_, err = c.Run(within(t), &Program{Path: "/bin/cat", Kernel: "dkernel9"})
	require.ErrorContains(t, err, "no such kernel")
	_, err = c.Run(within(t), &Program{Path: "/bin/cat", Kernel: "ckernel"})
	require.ErrorContains(t, err, "runs no programs")
}

// TestRunHungUp: a program whose client goes away is hung up on, and the launcher goes on.
func TestRunHungUp(t *testing.T) {
	c := served(t, nil)
	ctx, cancel := context.WithCancel(within(t))
	p, err := c.Run(ctx, &Program{Path: "/bin/cat"})
	require.NoError(t, err)
	cancel()
	_, err = p.Wait()
	require.ErrorIs(t, err, control.ErrClosed)
	p.Close()
	s, err := c.Status(within(t), true)
	require.NoError(t, err)
	require.True(t, s.Check.Clean)
}
