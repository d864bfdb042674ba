package rack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dinos/kernel/testproto"
	"dinos/qemu/vm"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/peer"
	"dinos/shmem/proto"
	"dinos/shmem/region"
	"dinos/shmem/rpc"
)

// fleet starts kernels that are goroutines. They have the shared memory and the doorbells through the socket that a QEMU would get, and speak to
// each other and to the host over the rings, as kernels do.
type fleet struct {
	mu     sync.Mutex
	plans  map[string][]plan // what the next lives of a kernel do; a life without a plan joins
	live   map[string]*fake  // the last machine of each kernel
	starts map[string]int
}

// plan is what a life does.
type plan int

const (
	join    plan = iota
	hang         // says nothing, joins never
	refuse       // ends at once with a line on its console
	noStart      // the machine cannot be started
)

func newFleet() *fleet {
	return &fleet{plans: map[string][]plan{}, live: map[string]*fake{}, starts: map[string]int{}}
}

// fake is a machine of a fleet.
type fake struct {
	fleet    *fleet
	cfg      vm.Config
	console  *vm.Console
	out      *io.PipeWriter
	socket   *net.UnixConn
	self     int
	paused   atomic.Bool
	ctx      context.Context // ends with the kernel
	cancel   context.CancelFunc
	exited   chan struct{}
	once     sync.Once
	exit     testproto.Exit
	err      error
	mu       sync.Mutex
	mem      []byte
	release  func()
	killed   error         // why it was killed
	ran      chan struct{} // closed when the kernel's main is through
	id       int
	bells    map[int]*os.File // vector 0 of each peer
	own      *os.File
	ready    chan struct{} // id, memory and own doorbell are known
	kernel   *peer.Peer
	server   *controlKernel // the ckernel's part
	finished sync.WaitGroup
}

func (f *fleet) start(cfg vm.Config) (machine, error) {
	f.mu.Lock()
	p := join
	if list := f.plans[cfg.Name]; len(list) > 0 {
		p, f.plans[cfg.Name] = list[0], list[1:]
	}
	f.starts[cfg.Name]++
	f.mu.Unlock()
	if p == noStart {
		return nil, &vm.HostError{VM: cfg.Name, Op: "start QEMU", Err: errors.New("no such luck")}
	}
	r, w := io.Pipe()
	k := &fake{fleet: f, cfg: cfg, console: vm.NewConsole(io.TeeReader(r, cfg.Output)), out: w, bells: map[int]*os.File{}, ready: make(chan struct{}),
		exited: make(chan struct{}), ran: make(chan struct{})}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	if _, err := fmt.Sscanf(cfg.Append, "dinos.peer=%d", &k.self); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(cfg.Files[0])
	if err != nil {
		return nil, err
	}
	k.socket = conn.(*net.UnixConn)
	f.mu.Lock()
	f.live[cfg.Name] = k
	f.mu.Unlock()
	k.finished.Go(k.readDoorbells)
	go func() {
		fmt.Fprintf(w, "dinos %s: main after 1.0 ms\r\n", cfg.Name)
		exit, err := testproto.Exit(0), error(errKilled)
		switch p {
		case hang:
			<-k.ctx.Done()
		case refuse:
			fmt.Fprintf(w, "dinos: boot: this machine has no soul\r\n")
			exit, err = testproto.ExitRefused, &vm.GuestError{VM: cfg.Name, Failure: vm.Refused}
		default:
			exit, err = k.run()
		}
		close(k.ran)
		k.end(exit, err)
	}()
	return k, nil
}

// the returns the machine of a kernel that was started last.
func (f *fleet) the(name string) *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live[name]
}

// end ends the machine: nothing of it runs when exited is closed.
func (k *fake) end(exit testproto.Exit, err error) {
	k.once.Do(func() {
		k.exit, k.err = exit, err
		if err == errKilled {
			k.mu.Lock()
			k.err = k.killed
			k.mu.Unlock()
		}
		k.cancel()
		k.socket.Close()
		k.mu.Lock()
		own := k.own
		k.mu.Unlock()
		if own != nil {
			own.Close()
		}
		k.finished.Wait()
		k.mu.Lock()
		for _, b := range k.bells {
			b.Close()
		}
		if k.mem != nil {
			k.release()
		}
		k.mu.Unlock()
		k.out.Close()
		close(k.exited)
	})
	<-k.exited
}

func (k *fake) PID() int { return 0 }

func (k *fake) Wait(context.Context) (testproto.Exit, error) { <-k.exited; return k.exit, k.err }

func (k *fake) Console() *vm.Console { return k.console }

func (k *fake) Dump(context.Context) (string, error) {
	return "--- vCPU 0: halted\n--- registers\n", nil
}

func (k *fake) Pause(context.Context) error { k.paused.Store(true); return nil }

func (k *fake) Resume(context.Context) error { k.paused.Store(false); return nil }

func (k *fake) Close() {
	k.kill(errKilled)
}

// die ends the machine as a signal from elsewhere would.
func (k *fake) die() {
	k.kill(&vm.HostError{VM: k.cfg.Name, Op: "run QEMU", Err: errors.New("signal: killed")})
}

// kill ends the machine for the reason err, unless it has ended.
func (k *fake) kill(err error) {
	k.mu.Lock()
	if k.killed == nil {
		k.killed = err
	}
	k.mu.Unlock()
	k.cancel()
	<-k.exited
}

// readDoorbells is the client of the ivshmem protocol; see package doorbell.
func (k *fake) readDoorbells() {
	seen := map[int]int{}
	for n := 0; ; n++ {
		b, oob := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
		got, oobn, _, _, err := k.socket.ReadMsgUnix(b, oob)
		if err != nil || got != 8 {
			return
		}
		v, fd := int(int64(binary.LittleEndian.Uint64(b))), -1
		if list, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(list) == 1 {
			if fds, err := unix.ParseUnixRights(&list[0]); err == nil && len(fds) == 1 {
				fd = fds[0]
			}
		}
		k.mu.Lock()
		switch {
		case n == 0: // version
		case n == 1:
			k.id = v
		case v == -1:
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil {
				f := os.NewFile(uintptr(fd), "memory")
				k.mem, k.release, _ = mapShared(f, int(st.Size))
				f.Close()
			}
		case fd < 0: // left
			if k.bells[v] != nil {
				k.bells[v].Close()
			}
			delete(k.bells, v)
			delete(seen, v)
		default:
			if seen[v]++; seen[v] > 1 { // another vector
				unix.Close(fd)
				break
			}
			f := os.NewFile(uintptr(fd), "bell")
			if v != k.id {
				k.bells[v] = f
				break
			}
			k.own = f
			close(k.ready)
		}
		k.mu.Unlock()
	}
}

// ring rings a doorbell; the machine's registers would.
func (k *fake) ring(id, _ int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.bells[id]; f != nil {
		f.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// errKilled is that the machine did not end by itself.
var errKilled = errors.New("killed by its owner")

// errOff is that a kernel ended in order.
var errOff = errors.New("off")

// run is the kernel.
func (k *fake) run() (testproto.Exit, error) {
	select {
	case <-k.ready:
	case <-k.ctx.Done():
		return 0, errKilled
	}
	mem, err := region.New(k.mem)
	if err != nil {
		return 0, err
	}
	off := make(chan struct{})
	kind := byte('d')
	if k.self == layout.Ckernel {
		kind = 'c'
	}
	cfg := peer.Config{Memory: mem, Self: k.self, Kind: kind, Name: k.cfg.Name, Doorbell: k.id, Ring: k.ring, Random: rand.Uint64,
		Cores: k.cfg.CPUs, RAM: k.cfg.Memory, Beat: 10 * time.Millisecond}
	cfg.OnTick = func() error {
		for k.paused.Load() && k.ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		select {
		case <-off:
			return errOff
		default:
		}
		if k.server != nil {
			return k.server.tick()
		}
		return nil
	}
	if k.kernel, err = peer.Open(cfg); err != nil {
		return 0, err
	}
	rpc.Handle(k.kernel.Mux(), rpc.Worker, func(_ *rpc.Request, q *proto.Shutdown, _ *proto.Done) error {
		if k.server != nil {
			k.server.shutdown(q.Reason)
		}
		time.AfterFunc(5*time.Millisecond, func() { close(off) })
		return nil
	})
	if k.self == layout.Ckernel {
		if k.server, err = newControl(k); err != nil {
			return 0, err
		}
		k.kernel.SetState(layout.StateUp)
	} else {
		k.finished.Go(k.register)
	}
	k.finished.Go(func() {
		b := make([]byte, 8)
		for {
			if _, err := k.own.Read(b); err != nil {
				return
			}
			k.kernel.Doorbell()
		}
	})
	switch err := k.kernel.Run(k.ctx); {
	case errors.Is(err, errOff):
		return testproto.ExitPass, nil
	case errors.Is(err, peer.ErrFenced):
		return testproto.ExitFenced, &vm.GuestError{VM: k.cfg.Name, Failure: vm.Exited, Detail: "fenced"}
	case err != nil:
		return testproto.ExitCrash, &vm.GuestError{VM: k.cfg.Name, Failure: vm.Crashed, Detail: err.Error()}
	}
	return 0, errKilled
}

// register becomes a member.
func (k *fake) register() {
	k.kernel.SetState(layout.StateJoining)
	for k.ctx.Err() == nil {
		c, err := k.kernel.Conn(layout.Ckernel)
		if err == nil {
			q := &proto.Register{Generation: k.kernel.Generation(), Rack: k.kernel.Rack().Generation, Doorbell: uint16(k.id), Cores: uint16(k.cfg.CPUs)}
			if err = c.Call(k.ctx, q, &proto.RegisterReply{}, 100*time.Millisecond); err == nil {
				k.kernel.SetState(layout.StateUp)
				fmt.Fprintf(k.out, "member\r\n")
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// controlKernel is a control kernel that knows just enough to be asked: members, who dies when their hearts stop, and a grant table.
type controlKernel struct {
	k     *fake
	table *grant.Table

	mu      sync.Mutex
	members map[int]*fakeMember
	told    []proto.Fence // what the host said
	damage  []string      // problems that Status reports
}

type fakeMember struct {
	gen, beat uint64
	at        time.Time
	dead      bool
}

// fakeDead is generous: these kernels are goroutines of a busy test.
const fakeDead = 2 * time.Second

func newControl(k *fake) (*controlKernel, error) {
	c := &controlKernel{k: k, members: map[int]*fakeMember{}}
	rack := k.kernel.Rack()
	var err error
	if c.table, _, err = grant.Recover(rack); err != nil {
		c.table, err = grant.Format(rack, true)
	}
	if err != nil {
		return nil, err
	}
	for e := range rack.Config.Machines { // who was a member before goes on, or dies of silence
		if b := k.kernel.Block(e); e != layout.Ckernel && layout.State(b.State.Load()) == layout.StateUp && !b.Fenced(b.Generation.Load()) {
			c.members[e] = &fakeMember{gen: b.Generation.Load(), at: time.Now()}
		}
	}
	m := k.kernel.Mux()
	rpc.Handle(m, rpc.Worker, func(q *rpc.Request, r *proto.Register, a *proto.RegisterReply) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		p := k.kernel.PeerOf(q.Conn)
		if old := c.members[p]; old != nil && old.gen < r.Generation {
			c.reclaim(p, old.gen)
		}
		c.members[p] = &fakeMember{gen: r.Generation, at: time.Now()}
		a.Peer = uint16(p)
		return c.table.Online(p, r.Generation, int(r.Cores))
	})
	rpc.Handle(m, rpc.Worker, func(_ *rpc.Request, q *proto.Fence, _ *proto.Done) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.told = append(c.told, *q)
		if m := c.members[int(q.Peer)]; m != nil && m.gen == q.Generation {
			c.reclaim(int(q.Peer), q.Generation)
		}
		return nil
	})
	rpc.Handle(m, rpc.Worker, func(_ *rpc.Request, q *proto.Status, a *proto.StatusReply) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for p, m := range c.members {
			a.Members = append(a.Members, proto.Member{Peer: uint16(p), Kind: 'd', State: uint8(layout.StateUp), Generation: m.gen})
		}
		n := c.table.Counts()
		a.FreeSlices, a.FreeCores = n.FreeSlices, n.FreeCores
		if q.Check {
			a.Problems = c.damage
		}
		return nil
	})
	shown := strings.Repeat("0123456789", 5000)
	rpc.Handle(m, rpc.Worker, func(_ *rpc.Request, q *proto.SchedShow, a *proto.SchedShowReply) error {
		text := shown
		if q.What != "" {
			text = "what: " + q.What
		}
		a.Total = uint32(len(text))
		text = text[min(int(q.Offset), len(text)):]
		a.Text = []byte(text[:min(len(text), proto.MaxData)])
		return nil
	})
	rpc.Handle(m, rpc.Worker, func(_ *rpc.Request, q *proto.SchedSet, a *proto.SchedSetReply) error {
		if string(q.Text) == "bad" {
			return rpc.Errorf(proto.CodeMalformed, "a bad policy")
		}
		a.Text = []byte("set " + q.Name)
		return nil
	})
	rpc.Handle(m, rpc.Worker, func(_ *rpc.Request, q *proto.SchedExplain, a *proto.SchedExplainReply) error {
		a.Text = append([]byte("because "), q.Requests...)
		return nil
	})
	c.programs(m)
	return c, nil
}

// fakePID is the process of all programs that run.
const fakePID = 7

// programs are what the fake rack can run: /bin/cat, which copies and ends with status 3, and says on its error output what it is told.
func (c *controlKernel) programs(m *rpc.Mux) {
	status, told := make(chan int32, 1), make(chan string, 10)
	rpc.HandleStream(m, func(s *rpc.Stream, q *proto.Run) error {
		if q.Path != "/bin/cat" {
			return &rpc.RemoteError{Code: proto.CodeErrno, Errno: 2, Text: q.Path + ": no such file or directory"}
		}
		if err := s.Accept(&proto.RunReply{PID: fakePID, Home: 2}); err != nil {
			return err
		}
		fmt.Fprintf(s, "%q in %q on %d\n", q.Args, q.Dir, q.Want.Machine)
		_, err := io.Copy(s, s)
		told <- ""
		if err != nil {
			status <- 1 // SIGHUP
			return err
		}
		status <- 3 << 8
		return s.CloseWrite()
	})
	rpc.HandleStream(m, func(s *rpc.Stream, q *proto.Stdio) error {
		if err := s.Accept(&proto.StdioReply{}); err != nil {
			return err
		}
		for text := range told {
			if text == "" {
				break
			}
			io.WriteString(s, text)
		}
		return s.CloseWrite()
	})
	rpc.Handle(m, rpc.Worker, func(r *rpc.Request, q *proto.WaitProcess, a *proto.WaitProcessReply) error {
		select {
		case a.Status = <-status:
		case <-r.Done():
			return r.Err()
		}
		return nil
	})
	rpc.Handle(m, rpc.Worker, func(_ *rpc.Request, q *proto.SignalProcess, _ *proto.Done) error {
		told <- fmt.Sprintf("signal %d to %d\n", q.Signal, q.PID)
		return nil
	})
	rpc.Handle(m, rpc.Inline, func(_ *rpc.Request, q *proto.Resize, _ *proto.Done) error {
		told <- fmt.Sprintf("%d rows, %d columns\n", q.Rows, q.Columns)
		return nil
	})
}

// reclaim ends a membership; mu is held.
func (c *controlKernel) reclaim(p int, gen uint64) {
	c.k.kernel.Block(p).Fence.Store(gen)
	c.table.Reclaim(p, gen)
	delete(c.members, p)
}

// tick declares dead whose heart does not beat, and has the host make sure of it.
func (c *controlKernel) tick() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, m := range c.members {
		if b := c.k.kernel.Block(p).Heartbeat.Load(); b != m.beat {
			m.beat, m.at = b, time.Now()
			continue
		}
		if m.dead || time.Since(m.at) < fakeDead {
			continue
		}
		m.dead = true
		c.k.kernel.Block(p).Fence.Store(m.gen)
		c.k.finished.Go(func() {
			conn, err := c.k.kernel.Conn(c.k.kernel.Rack().Host())
			if err == nil {
				err = conn.Call(c.k.ctx, &proto.Fence{Peer: uint16(p), Generation: m.gen, Reason: "no heartbeat"}, &proto.Done{}, time.Second)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if err == nil && c.members[p] == m {
				c.reclaim(p, m.gen)
			} else if err != nil {
				m.dead = false // once more
			}
		})
	}
	return nil
}

// shutdown asks all members to end and waits for it.
func (c *controlKernel) shutdown(reason string) {
	c.mu.Lock()
	var list []int
	for p := range c.members {
		list = append(list, p)
	}
	c.mu.Unlock()
	for _, p := range list {
		if conn, err := c.k.kernel.Conn(p); err == nil {
			conn.Call(c.k.ctx, &proto.Shutdown{Reason: reason}, &proto.Done{}, time.Second)
		}
	}
}

// told returns what the host told the ckernel of lives that are over.
func (f *fleet) told() []string {
	c := f.the("ckernel").server
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, q := range c.told {
		list = append(list, fmt.Sprintf("%d@%d %s", q.Peer, q.Generation, strings.SplitN(q.Reason, ",", 2)[0]))
	}
	return list
}
