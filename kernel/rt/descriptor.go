package rt

import (
	"dinos/kernel/linux"
	"dinos/kernel/trap"
)

// write serves the console (1 and 2) and event descriptors.
func (k *Kernel) write(cpu *trap.CPU, fd, buf, n uint64) uint64 {
	if fd == 1 || fd == 2 {
		k.Print(bytesAt(buf, n))
		return n
	}
	if n < 8 {
		return linux.EINVAL.Ret()
	}
	k.sched.Lock()
	r := linux.EBADF.Ret()
	if k.events.get(fd) != nil {
		k.cpus[cpu.ID].kicks |= k.events.signal(&k.threads, int(fd-firstEventFD), *wordAt(buf))
		r = 8
	}
	k.release(cpu)
	return r
}

// read serves event descriptors: the count, which becomes 0 (eventfd(2)).
func (k *Kernel) read(fd, buf, n uint64) uint64 {
	if n < 8 {
		return linux.EINVAL.Ret()
	}
	k.sched.Lock()
	r := uint64(8)
	switch ev := k.events.get(fd); {
	case ev == nil:
		r = linux.EBADF.Ret()
	case ev.count == 0:
		r = linux.EAGAIN.Ret()
	default:
		*wordAt(buf) = ev.count
		ev.count = 0
	}
	k.sched.Unlock()
	return r
}

// descriptor serves the calls that make, change and close descriptors. sched is held.
func (k *Kernel) descriptor(c *trap.Context) uint64 {
	switch c.RAX {
	case linux.SYS_EVENTFD2:
		if c.RSI&linux.EFD_SEMAPHORE != 0 || c.RSI&linux.O_NONBLOCK == 0 {
			return linux.EINVAL.Ret() // only what the poller can serve
		}
		return k.events.create(c.RDI, c.RSI)
	case linux.SYS_EPOLL_CREATE1:
		if k.events.open {
			return linux.EMFILE.Ret()
		}
		k.events.open = true
		return epollFD
	case linux.SYS_EPOLL_CTL:
		if c.RDI != epollFD || !k.events.open {
			return linux.EBADF.Ret()
		}
		return k.events.ctl(c.RSI, c.RDX, c.R10)
	case linux.SYS_CLOSE:
		ev := k.events.get(c.RDI)
		if ev == nil {
			return linux.EBADF.Ret()
		}
		*ev = event{}
		return 0
	}
	return k.fcntl(c.RDI, c.RSI, c.RDX)
}

func (k *Kernel) fcntl(fd, cmd, arg uint64) uint64 {
	ev := k.events.get(fd)
	if ev == nil && fd > 2 {
		return linux.EBADF.Ret()
	}
	switch cmd {
	case linux.F_GETFL:
		if ev != nil && ev.nonblock {
			return linux.O_RDWR | linux.O_NONBLOCK
		}
		return linux.O_RDWR
	case linux.F_SETFL:
		if ev != nil {
			ev.nonblock = arg&linux.O_NONBLOCK != 0
		}
		return 0
	case linux.F_GETFD, linux.F_SETFD:
		return 0
	}
	return linux.EINVAL.Ret()
}
