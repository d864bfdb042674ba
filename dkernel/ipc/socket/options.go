package socket

import (
	"sync"

	"dinos/dkernel/cred"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Sizes of buffers (net.core of sysctl).
const (
	DefaultBuf = 212992
	maxBuf     = 212992
	minSendBuf = 4608
	minRecvBuf = 2304
)

// Options are those of SOL_SOCKET that all families have. Embed it; the zero value is not ready, see Init.
type Options struct {
	mu       sync.Mutex // guards all
	flags    map[int]bool
	sendBuf  int
	recvBuf  int
	lowat    int
	priority int32
	mark     int32
	linger   linux.Linger
	recvTime int64 // ns; 0: for ever; below 0: not at all
	sendTime int64
	passCred bool
}

// Init sets the defaults.
func (o *Options) Init() { o.sendBuf, o.recvBuf, o.lowat = DefaultBuf, DefaultBuf, 1 }

// Buffers are how many bytes it may have sent that are not received, and received that are not read.
func (o *Options) Buffers() (send, recv int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sendBuf, o.recvBuf
}

// Lowat is how many bytes a read waits for.
func (o *Options) Lowat() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lowat
}

// PassCred tells whether credentials of senders are wanted (SO_PASSCRED).
func (o *Options) PassCred() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.passCred
}

// Deadline is when a blocking operation that begins now gives up: linux.EAGAIN then.
func (o *Options) Deadline(now func() int64, send bool) int64 {
	o.mu.Lock()
	t := o.recvTime
	if send {
		t = o.sendTime
	}
	o.mu.Unlock()
	switch {
	case t == 0:
		return wait.Forever
	case t < 0:
		return 0
	}
	if at := now() + t; at > 0 {
		return at
	}
	return wait.Forever
}

// Int is the value of an option that is a number.
func Int(v int) []byte { return le.AppendUint32(nil, uint32(v)) }

// Bool is the value of an option that is on or off.
func Bool(on bool) []byte {
	if on {
		return Int(1)
	}
	return Int(0)
}

// switches are the options that are just remembered: they say something about networks.
var switches = map[int]bool{linux.SO_DEBUG: true, linux.SO_REUSEADDR: true, linux.SO_DONTROUTE: true, linux.SO_BROADCAST: true,
	linux.SO_KEEPALIVE: true, linux.SO_OOBINLINE: true, linux.SO_NO_CHECK: true, linux.SO_TIMESTAMP: true, linux.SO_RXQ_OVFL: true,
	linux.SO_BSDCOMPAT: true}

// Get returns an option of SOL_SOCKET; ok is false for one that the family has to know.
func (o *Options) Get(name int) (v []byte, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch name {
	case linux.SO_SNDBUF:
		return Int(o.sendBuf), true
	case linux.SO_RCVBUF:
		return Int(o.recvBuf), true
	case linux.SO_RCVLOWAT:
		return Int(o.lowat), true
	case linux.SO_SNDLOWAT:
		return Int(1), true
	case linux.SO_PRIORITY:
		return Int(int(o.priority)), true
	case linux.SO_MARK:
		return Int(int(o.mark)), true
	case linux.SO_PASSCRED:
		return Bool(o.passCred), true
	case linux.SO_LINGER:
		return le.AppendUint32(Int(int(o.linger.OnOff)), uint32(o.linger.Linger)), true
	case linux.SO_RCVTIMEO, linux.SO_RCVTIMEO_NEW:
		return timeval(o.recvTime), true
	case linux.SO_SNDTIMEO, linux.SO_SNDTIMEO_NEW:
		return timeval(o.sendTime), true
	case linux.SO_PEEK_OFF:
		return Int(-1), true
	case linux.SO_REUSEPORT:
		return Int(0), true
	}
	if switches[name] {
		return Bool(o.flags[name] && name != linux.SO_BSDCOMPAT), true // which Linux ignores
	}
	return nil, false
}

func timeval(ns int64) []byte {
	ns = max(ns, 0)
	return le.AppendUint64(le.AppendUint64(nil, uint64(ns/1e9)), uint64(ns%1e9/1000))
}

// Set changes an option of SOL_SOCKET; ok is false for one that the family has to know.
func (o *Options) Set(c *vfs.Caller, name int, v []byte) (ok bool, err error) {
	if len(v) < 4 {
		return true, linux.EINVAL
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := int32(le.Uint32(v))
	admin := c.Cred.Can(cred.NET_ADMIN)
	switch name {
	case linux.SO_SNDBUFFORCE, linux.SO_RCVBUFFORCE:
		if !admin {
			return true, linux.EPERM
		}
		b := min(max(int(n), 0), 1<<30-1) * 2
		if name == linux.SO_SNDBUFFORCE {
			o.sendBuf = max(b, minSendBuf)
		} else {
			o.recvBuf = max(b, minRecvBuf)
		}
	case linux.SO_SNDBUF:
		o.sendBuf = max(int(min(uint32(n), maxBuf))*2, minSendBuf)
	case linux.SO_RCVBUF:
		o.recvBuf = max(int(min(uint32(n), maxBuf))*2, minRecvBuf)
	case linux.SO_RCVLOWAT:
		o.lowat = int(n)
		if n < 0 {
			o.lowat = 1<<31 - 1
		}
		o.lowat = max(o.lowat, 1)
	case linux.SO_PRIORITY:
		if (n < 0 || n > 6) && !admin {
			return true, linux.EPERM
		}
		o.priority = n
	case linux.SO_MARK:
		if !admin {
			return true, linux.EPERM
		}
		o.mark = n
	case linux.SO_PASSCRED:
		o.passCred = n != 0
	case linux.SO_LINGER:
		if len(v) < 8 {
			return true, linux.EINVAL
		}
		o.linger.OnOff = 0
		if n != 0 {
			o.linger = linux.Linger{OnOff: 1, Linger: int32(le.Uint32(v[4:]))}
		}
	case linux.SO_RCVTIMEO, linux.SO_RCVTIMEO_NEW:
		return true, setTime(&o.recvTime, v)
	case linux.SO_SNDTIMEO, linux.SO_SNDTIMEO_NEW:
		return true, setTime(&o.sendTime, v)
	case linux.SO_PEEK_OFF:
		if n != -1 {
			return true, linux.EOPNOTSUPP
		}
	case linux.SO_TYPE, linux.SO_PROTOCOL, linux.SO_DOMAIN, linux.SO_ERROR, linux.SO_SNDLOWAT, linux.SO_ACCEPTCONN, linux.SO_PEERCRED:
		return true, linux.ENOPROTOOPT
	default:
		if !switches[name] {
			return false, nil
		}
		if name == linux.SO_DEBUG && n != 0 && !admin {
			return true, linux.EACCES
		}
		if o.flags == nil {
			o.flags = map[int]bool{}
		}
		o.flags[name] = n != 0
	}
	return true, nil
}

func setTime(t *int64, v []byte) error {
	if len(v) < 16 {
		return linux.EINVAL
	}
	sec, usec := int64(le.Uint64(v)), int64(le.Uint64(v[8:]))
	switch {
	case usec < 0 || usec >= 1e6:
		return linux.EDOM
	case sec < 0:
		*t = -1
	case sec >= (1<<63-1)/1_000_000_000-1:
		*t = 0
	default:
		*t = sec*1e9 + usec*1000
	}
	return nil
}

// Wait is wait.Sleeper.Until with the time-out of the option: linux.EAGAIN after it, and linux.EINTR instead of linux.ERESTARTSYS if there is
// one, as a call that is begun again would wait for the whole time again. If s is nil it tries once.
func (o *Options) Wait(s *wait.Sleeper, now func() int64, q *wait.Queue, mask wait.Events, send bool, try func() error) error {
	deadline := o.Deadline(now, send)
	err := s.Until(q, mask, deadline, try)
	switch {
	case err == linux.ETIMEDOUT:
		err = linux.EAGAIN
	case err == linux.ERESTARTSYS && deadline != wait.Forever:
		err = linux.EINTR
	}
	return err
}
