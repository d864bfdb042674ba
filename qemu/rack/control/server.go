package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// requestWait is how long a client may take for its first line.
const requestWait = 10 * time.Second

// Handler serves a command: it returns what the client gets as a result, or an error. An *Error keeps its code. ctx ends when the client goes away
// or the server closes.
type Handler func(ctx context.Context, s *Session) (result any, err error)

// Session is a command that is being served.
type Session struct {
	Command string
	args    json.RawMessage
	link    *link
}

// Args decodes the arguments to v; what v does not know is an error of the client.
func (s *Session) Args(v any) error {
	if len(s.args) == 0 {
		return nil
	}
	if err := json.Unmarshal(s.args, v); err != nil {
		return Errorf(CodeUsage, "%s: arguments: %v", s.Command, err)
	}
	return nil
}

// Channel returns a channel to the client.
func (s *Session) Channel(n uint8) *Channel { return s.link.open(n) }

// Event tells the client something.
func (s *Session) Event(name string, data any) error { return s.link.sendEvent(name, data) }

// NextEvent waits for an event of the client. The error is ErrClosed or ErrProtocol, or that ctx is done.
func (s *Session) NextEvent(ctx context.Context) (Event, error) { return s.link.next(ctx.Done()) }

// Server serves commands. Its methods may be called concurrently.
type Server struct {
	handlers map[string]Handler
	listener *net.UnixListener
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	links map[*link]bool // guarded by mu
	ended bool           // guarded by mu
}

// Listen serves commands at a socket, which must not exist and gets mode 0600. Close ends it.
func Listen(path string, handlers map[string]Handler) (*Server, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	// Who can connect can do with the rack what its owner can. The directory is the owner's alone, too.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control: %w", err)
	}
	s := &Server{handlers: handlers, listener: l, links: map[*link]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.accept)
	return s, nil
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptors left, say: that passes
			select {
			case <-time.After(10 * time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		l := newLink(conn)
		s.mu.Lock()
		ended := s.ended
		if !ended {
			s.links[l] = true
			s.running.Add(1)
		}
		s.mu.Unlock()
		if ended {
			conn.Close()
			continue
		}
		go func() {
			defer s.running.Done()
			s.serve(conn, l)
			s.mu.Lock()
			delete(s.links, l)
			s.mu.Unlock()
		}()
	}
}

// serve handles one connection.
func (s *Server) serve(conn *net.UnixConn, l *link) {
	defer conn.Close()
	if err := checkPeer(conn); err != nil {
		l.sendJSON(kindResult, result{Error: &Error{CodeUsage, err.Error()}})
		return
	}
	conn.SetReadDeadline(time.Now().Add(requestWait))
	idle := context.AfterFunc(s.ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	r := bufio.NewReaderSize(conn, MaxFrame)
	req, err := readRequest(r)
	if err != nil {
		idle()
		if !isClosed(err) {
			l.sendJSON(kindResult, result{Error: &Error{CodeUsage, err.Error()}})
		}
		return
	}
	if !idle() {
		return // the server closes
	}
	conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var reading sync.WaitGroup
	reading.Go(func() {
		l.read(r)
		cancel()
	})
	l.sendJSON(kindResult, s.run(ctx, &Session{req.Command, req.Args, l}))
	l.fail(ErrClosed)
	reading.Wait()
}

// readRequest reads the first line.
func readRequest(r *bufio.Reader) (q request, err error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return q, err
		}
		if len(line) > MaxRequest {
			return q, fmt.Errorf("request of more than %d bytes", MaxRequest)
		}
	}
	if err := json.Unmarshal(line, &q); err != nil {
		return q, fmt.Errorf("request: %w", err)
	}
	if q.Version != Version {
		return q, fmt.Errorf("protocol version %d, this launcher speaks %d: use the dinos that started the rack", q.Version, Version)
	}
	return q, nil
}

// run calls the handler. A panic in it ends the command, not the rack.
func (s *Server) run(ctx context.Context, q *Session) (res result) {
	h := s.handlers[q.Command]
	if h == nil {
		return result{Error: &Error{CodeUsage, fmt.Sprintf("unknown command %q", q.Command)}}
	}
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(os.Stderr, "%s: panic: %v\n%s", q.Command, v, debug.Stack())
			res = result{Error: &Error{CodeHost, fmt.Sprintf("%s: the launcher panicked: %v; see its log", q.Command, v)}}
		}
	}()
	v, err := h(ctx, q)
	if err != nil {
		return result{Error: toError(err)}
	}
	b, err := json.Marshal(v)
	if err == nil && len(b) > MaxJSON-1024 {
		err = fmt.Errorf("result of %d bytes, want at most %d", len(b), MaxJSON-1024)
	}
	if err != nil {
		return result{Error: &Error{CodeHost, fmt.Sprintf("%s: %v", q.Command, err)}}
	}
	return result{Result: b}
}

func toError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return &Error{e.Code, err.Error()}
	case errors.Is(err, context.Canceled):
		return &Error{CodeCanceled, err.Error()}
	}
	return &Error{CodeHost, err.Error()}
}

// checkPeer refuses clients of other users but root; unix(7), SO_PEERCRED.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if cerr != nil {
		return os.NewSyscallError("getsockopt(SO_PEERCRED)", cerr)
	}
	if int(cred.Uid) != os.Getuid() && cred.Uid != 0 {
		return fmt.Errorf("user %d is not the owner of this rack", cred.Uid)
	}
	return nil
}

// closeWait is how long handlers may take, after they were told to end, until their clients are cut off.
const closeWait = 2 * time.Second

// Close takes no more commands, cancels those that run, waits for their handlers, and removes the socket. A handler that ends soon can
// still answer.
func (s *Server) Close() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.listener.Close()
	s.cancel()
	cut := time.AfterFunc(closeWait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for l := range s.links {
			l.conn.Close()
		}
	})
	s.running.Wait()
	cut.Stop()
}
