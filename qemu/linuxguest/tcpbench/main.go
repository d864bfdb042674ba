// Command tcpbench is one of two Linux machines that send each other small messages by TCP: the yardstick for RPCs between
// kernels. It loads the drivers in /modules, gives eth0 its address, and is the client or the server.
//
// Sockets are used by plain blocking system calls, or polled, not through Go's poller: it is Linux that is measured.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dinos/kernel/rtbench"
)

const (
	port    = 7
	message = 32 // bytes: what a null call takes in a ring
	pause   = 3 * time.Millisecond
)

// What both sides do, announced by the first byte of each message.
const (
	block byte = iota // the reader sleeps
	poll              // the reader asks again and again
	end
)

func main() {
	serve := flag.Bool("serve", false, "be the server")
	addr := flag.String("addr", "", "address of eth0")
	peer := flag.String("peer", "", "address of the server")
	awake := flag.Int("awake", 20000, "round trips without pause")
	idle := flag.Int("idle", 300, "round trips with a pause before each")
	flag.Parse()
	runtime.LockOSThread()
	err := up(*addr)
	switch {
	case err != nil:
	case *serve:
		err = server()
	default:
		err = client(*peer, *awake, *idle)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tcpbench:", err)
		os.Exit(1)
	}
}

// up loads the drivers and configures the network device.
func up(addr string) error {
	for i := 0; ; i++ {
		f, err := os.Open(fmt.Sprintf("/modules/%d.ko", i))
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("load %s: %w", f.Name(), err)
		}
		f.Close()
	}
	a, err := netip.ParseAddr(addr)
	if err != nil || !a.Is4() {
		return fmt.Errorf("address %q, want an IPv4 address", addr)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var r *unix.Ifreq
	for start := time.Now(); ; time.Sleep(time.Millisecond) { // the driver makes the device in its own time
		if r, err = unix.NewIfreq("eth0"); err != nil {
			return err
		}
		if err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			return fmt.Errorf("eth0: %w", err)
		}
	}
	flags := r.Uint16()
	ip := a.As4()
	if err := r.SetInet4Addr(ip[:]); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r); err != nil {
		return fmt.Errorf("eth0: address: %w", err)
	}
	r.SetUint16(flags | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("eth0: up: %w", err)
	}
	return nil
}

// transfer moves all of b by f.
func transfer(b []byte, f func([]byte) (int, error)) error {
	for len(b) > 0 {
		n, err := f(b)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errors.New("the peer has closed the connection")
		default:
			b = b[n:]
		}
	}
	return nil
}

func send(fd int, b []byte) error {
	return transfer(b, func(b []byte) (int, error) { return unix.Write(fd, b) })
}

func recv(fd int, b []byte, how byte) error {
	return transfer(b, func(b []byte) (int, error) {
		if how == poll {
			n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
			return n, err
		}
		return unix.Read(fd, b)
	})
}

func server() error {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	if err := unix.Listen(l, 1); err != nil {
		return err
	}
	fd, _, err := unix.Accept(l)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	b := make([]byte, message)
	for b[0] != end {
		if err := recv(fd, b, b[0]); err != nil {
			return err
		}
		if err := send(fd, b); err != nil {
			return err
		}
	}
	return nil
}

func client(peer string, awake, idle int) error {
	a, err := netip.ParseAddr(peer)
	if err != nil || !a.Is4() {
		return fmt.Errorf("server %q, want an IPv4 address", peer)
	}
	fd := -1
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
			return err
		}
		if err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: a.As4()}); err == nil {
			break
		}
		unix.Close(fd)
		if time.Since(start) > time.Minute {
			return fmt.Errorf("connect to %v: %w", a, err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	for _, c := range []struct {
		name  string
		n     int
		how   byte
		pause time.Duration
	}{{"tcp-block", awake, block, 0}, {"tcp-poll", awake, poll, 0}, {"tcp-idle", idle, block, pause}} {
		took, err := pingPong(fd, c.n, c.how, c.pause)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err := report(c.name, took); err != nil {
			return err
		}
	}
	return send(fd, append([]byte{end}, make([]byte, message-1)...))
}

// pingPong returns how long each of n round trips took, in ns. A tenth more come before those that count.
func pingPong(fd, n int, how byte, pause time.Duration) ([]int64, error) {
	b := make([]byte, message)
	took := make([]int64, 0, n)
	for i := -n / 10; i < n; i++ {
		if pause > 0 {
			// By the kernel, not by Go's timers: when the thread goes on nothing else has to wake up.
			_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(pause)}, nil)
		}
		b[0] = how
		start := time.Now()
		if err := send(fd, b); err != nil {
			return nil, err
		}
		if err := recv(fd, b, how); err != nil {
			return nil, err
		}
		if d := time.Since(start); i >= 0 {
			took = append(took, int64(d))
		}
	}
	return took, nil
}

func report(name string, took []int64) error {
	slices.Sort(took)
	at := func(percent int) float64 { return float64(took[(len(took)-1)*percent/100]) }
	line, err := json.Marshal(rtbench.Result{Name: name, Unit: "ns", Min: at(0), P50: at(50), P99: at(99), N: len(took), CPUs: runtime.NumCPU()})
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(rtbench.Prefix + string(line) + "\n")
	return err
}
