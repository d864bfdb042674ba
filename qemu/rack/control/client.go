package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Client is a command under way.
type Client struct {
	link *link
	stop func() bool
	once sync.Once
}

// Open sends a command to the launcher at a socket. Close must be called. When ctx is done, the command is cancelled. The error is ErrNoServer
// or the operating system's.
func Open(ctx context.Context, path, command string, args any) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
			return nil, fmt.Errorf("%w at %s", ErrNoServer, path)
		}
		return nil, err
	}
	q := request{Version: Version, Command: command}
	if args != nil {
		if q.Args, err = json.Marshal(args); err != nil {
			conn.Close()
			return nil, err
		}
	}
	line, err := json.Marshal(q)
	if err == nil && len(line) >= MaxRequest {
		err = fmt.Errorf("%s: arguments of %d bytes, want less than %d", command, len(line), MaxRequest)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := &Client{link: newLink(conn)}
	c.stop = context.AfterFunc(ctx, func() { c.link.fail(fmt.Errorf("%w: %w", ErrClosed, context.Cause(ctx))) })
	go c.link.read(bufio.NewReaderSize(conn, MaxFrame))
	// A server that refuses does so without reading on: what it says is for Wait.
	conn.Write(append(line, '\n'))
	return c, nil
}

// Channel returns a channel to the server.
func (c *Client) Channel(n uint8) *Channel { return c.link.open(n) }

// Event tells the server something.
func (c *Client) Event(name string, data any) error { return c.link.sendEvent(name, data) }

// NextEvent waits for an event of the server. At the end of the command the error is ErrClosed.
func (c *Client) NextEvent() (Event, error) { return c.link.next(nil) }

// Wait waits for the end of the command and decodes its result to v, unless that is nil. Errors: *Error is the command's; ErrClosed and ErrProtocol
// that there is no result.
func (c *Client) Wait(v any) error {
	<-c.link.done
	c.link.mu.Lock()
	b, whole, err := c.link.result, c.link.whole, c.link.err
	c.link.mu.Unlock()
	if !whole {
		return err
	}
	var res result
	if err := json.Unmarshal(b, &res); err != nil {
		return fmt.Errorf("%w: result: %v", ErrProtocol, err)
	}
	if res.Error != nil {
		return res.Error
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(res.Result, v); err != nil {
		return fmt.Errorf("%w: result: %v", ErrProtocol, err)
	}
	return nil
}

// Close ends the command, if it still runs, and the connection.
func (c *Client) Close() {
	c.once.Do(func() {
		c.stop()
		c.link.fail(ErrClosed)
	})
}

// Call runs a command that is only a question and an answer.
func Call(ctx context.Context, path, command string, args, result any) error {
	c, err := Open(ctx, path, command, args)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Wait(result)
}
