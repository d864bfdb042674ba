package epoll

import (
	"encoding/binary"
	"sync"

	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// places are entries for threads in Wait, so that none is allocated.
var places = sync.Pool{New: func() any { return new(wait.Entry) }}

// Wait is epoll_wait(2), epoll_pwait(2) and epoll_pwait2(2): it stores up to max events at addr and returns how many. The deadline is
// the Sleeper's, 0 is not to wait. Errors: linux.EINVAL if max is not positive or epfd is no epoll, linux.EINTR after a signal,
// linux.EFAULT.
func Wait(c *vfs.Caller, epfd int, addr uint64, max int, deadline int64) (int, error) {
	if max <= 0 || max > (1<<31-1)/eventSize {
		return 0, linux.EINVAL
	}
	r, ep, err := get(c, epfd)
	if err != nil {
		return 0, err
	}
	defer r.Put()
	n, err := ep.collect(c, addr, max)
	s := c.Sleeper
	if n == 0 && err == nil && deadline > 0 && s != nil {
		e := places.Get().(*wait.Entry)
		e.W, e.Mask, e.Exclusive = s, wait.Readable, true
		ep.q.Add(e)
		for {
			if n, err = ep.collect(c, addr, max); n > 0 || err != nil {
				break
			}
			if err = s.Sleep(deadline); err != nil {
				break
			}
		}
		ep.q.Remove(e)
		e.W = nil
		places.Put(e)
		if n == 0 && (err == linux.ERESTARTSYS || err == linux.ETIMEDOUT) {
			why := err
			// It may have come true in the same moment, and nobody else was woken for it.
			if n, err = ep.collect(c, addr, max); n == 0 && err == nil && why == linux.ERESTARTSYS {
				err = linux.EINTR
			}
		}
	}
	if n > 0 {
		err = nil
	}
	ep.more()
	return n, err
}

// more wakes the next thread if there is more to report.
func (ep *Epoll) more() {
	if ep.q.Empty() {
		return
	}
	ep.ready.mu.Lock()
	some := ep.ready.head != nil
	ep.ready.mu.Unlock()
	if some {
		ep.q.Wake(wait.Readable)
	}
}

// collect stores what is ready. The error is linux.EFAULT; what was not stored stays on the list.
func (ep *Epoll) collect(c *vfs.Caller, addr uint64, max int) (n int, err error) {
	ep.ready.mu.Lock()
	empty := ep.ready.head == nil
	ep.ready.mu.Unlock()
	if empty {
		return 0, nil
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	// Each item is looked at once, though level triggered ones come back.
	ep.ready.mu.Lock()
	last := ep.ready.tail
	ep.ready.mu.Unlock()
	for filled := 0; ; {
		it := (*item)(nil)
		if n+filled < max && last != nil {
			it = ep.first()
		}
		if it != nil {
			if it == last {
				last = nil
			}
			if ev := it.state(); ev != 0 {
				b := ep.buf[filled*eventSize:]
				binary.LittleEndian.PutUint32(b, ev)
				binary.LittleEndian.PutUint32(b[4:], it.data[0])
				binary.LittleEndian.PutUint32(b[8:], it.data[1])
				ep.sent[filled] = it
				filled++
			}
			if filled < batch {
				continue
			}
		}
		if filled > 0 {
			if err = ep.send(c, addr+uint64(n)*eventSize, filled); err != nil {
				return n, err
			}
			n += filled
			filled = 0
		}
		if it == nil {
			return n, nil
		}
	}
}

// send copies a batch to the program and does with its items what is due.
func (ep *Epoll) send(c *vfs.Caller, addr uint64, n int) error {
	_, err := c.Mem.CopyOut(addr, ep.buf[:n*eventSize])
	for i, it := range ep.sent[:n] {
		ep.sent[i] = nil
		events := it.events.Load()
		switch {
		case err != nil:
			it.enlist()
		case events&linux.EPOLLONESHOT != 0:
			it.events.Store(events & private)
		case events&linux.EPOLLET == 0:
			it.enlist()
		}
	}
	return err
}
