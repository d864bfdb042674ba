package rt

import (
	"dinos/kernel/linux"
	"dinos/kernel/thread"
)

// Event descriptors (eventfd) and the one epoll instance of the runtime's network poller. Interrupts of devices arrive
// as writes to an event descriptor: a goroutine reads it as a file and sleeps in the poller.

const (
	maxEvents    = 64
	firstEventFD = 10 // above stdin, stdout, stderr and whatever a program expects there
	epollFD      = 9
)

type event struct {
	used, polled bool
	nonblock     bool
	edge         bool // report only what came since the last report
	fresh        bool
	count        uint64
	interest     uint32
	data         [2]uint32
}

type events struct {
	open  bool
	list  [maxEvents]event
	ready int // polled events that have something to report
}

func (e *events) init() { *e = events{} }

// key is what threads in epoll_wait wait for: any address that no futex has.
const epollKey = 3

func (e *events) create(count uint64, flags uint64) uint64 {
	for i := range e.list {
		if !e.list[i].used {
			e.list[i] = event{used: true, count: count, nonblock: flags&linux.O_NONBLOCK != 0}
			return uint64(i + firstEventFD)
		}
	}
	return linux.EMFILE.Ret()
}

// get returns the event with descriptor fd, nil if there is none.
func (e *events) get(fd uint64) *event {
	i := fd - firstEventFD
	if i >= maxEvents || !e.list[i].used {
		return nil
	}
	return &e.list[i]
}

// signal adds n to event i and wakes a thread in epoll_wait; it returns the CPUs to kick.
func (e *events) signal(t *thread.Table, i int, n uint64) uint64 {
	ev := &e.list[i]
	if !ev.used {
		return 0
	}
	ev.count += n
	ev.fresh = true
	if !ev.polled || ev.interest&linux.EPOLLIN == 0 {
		return 0
	}
	_, kick := t.Wake(epollKey, 1)
	return kick
}

// events that a poll would report now.
func (ev *event) reportable() uint32 {
	if !ev.used || !ev.polled || ev.edge && !ev.fresh {
		return 0
	}
	got := uint32(0)
	if ev.count > 0 {
		got |= linux.EPOLLIN
	}
	if ev.edge {
		got |= linux.EPOLLOUT // an event descriptor can always be written
	}
	return got & ev.interest
}

func (e *events) any() bool {
	for i := range e.list {
		if e.list[i].reportable() != 0 {
			return true
		}
	}
	return false
}

// collect stores what is ready at address buf, at most n events, and returns how many.
func (e *events) collect(buf, n uint64) uint64 {
	got := uint64(0)
	for i := range e.list {
		ev := &e.list[i]
		r := ev.reportable()
		if r == 0 {
			continue
		}
		if got == n {
			break
		}
		*epollEventAt(buf + got*sizeEpollEvent) = linux.EpollEvent{Events: r, Data: ev.data}
		ev.fresh = false
		got++
	}
	return got
}

func (e *events) ctl(op, fd, arg uint64) uint64 {
	ev := e.get(fd)
	if ev == nil {
		return linux.EBADF.Ret()
	}
	switch op {
	case linux.EPOLL_CTL_ADD:
		if ev.polled {
			return linux.EEXIST.Ret()
		}
	case linux.EPOLL_CTL_MOD, linux.EPOLL_CTL_DEL:
		if !ev.polled {
			return linux.ENOENT.Ret()
		}
		if op == linux.EPOLL_CTL_DEL {
			ev.polled = false
			return 0
		}
	default:
		return linux.EINVAL.Ret()
	}
	in := epollEventAt(arg)
	ev.polled, ev.fresh = true, true
	ev.edge = in.Events&linux.EPOLLET != 0
	ev.interest, ev.data = in.Events&(linux.EPOLLIN|linux.EPOLLOUT), in.Data
	return 0
}
