// Package pipe is the pipes and FIFOs of pipe(7) and fifo(7).
//
// A pipe is a ring of pages, as on Linux, since programs can see that: PIPE_BUF is a page, a small write joins the last page if it
// fits there whole, else it begins one of its own, and how much fits is counted in pages.
//
// Lock order: Pipe.mu, then what copying to or from a program takes. A thread that holds mu may wait for a page fault, never for
// another thread's use of the pipe.
package pipe

import (
	"sync"
	"sync/atomic"

	"dinos/dkernel/cred"
	"dinos/dkernel/uio"
	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// Limits (pipe(7)).
const (
	pageSize = 4096
	// DefaultSize is how many bytes a new pipe holds, Max how many an unprivileged one can be made to.
	DefaultSize = 16 * pageSize
	Max         = 1 << 20
	// kept is how many unused pages a pipe keeps for its next writes.
	kept = 16
)

type page [pageSize]byte

// slot is a page of the ring that has data.
type slot struct {
	page     *page
	off, end uint16 // end is 4096 at most, off less
	merge    bool   // a write may add to it
	packet   bool   // of O_DIRECT: one read takes it, whole or cut
}

// Pipe is a pipe, and the [vfs.File] of both its ends: which one, the description's mode tells.
type Pipe struct {
	nameless bool // of pipe(2); it does not change

	// Who waits: to read, to write, or (FIFOs opened for both) polls for either. Wake-ups are as on Linux, where a program can
	// tell: an edge triggered epoll of the one end does not hear of the other.
	rd, wr, both wait.Queue

	mu      sync.Mutex // guards all below
	ring    []slot     // length is a power of two
	head    uint32     // oldest slot in use, counted on for ever
	free    []*page
	claimed bool // a reader looks at the data outside mu: other readers wait

	// Changed with mu held; Poll reads them without.
	used, slots      atomic.Uint32    // slots in use and in all
	readers, writers atomic.Int32     // descriptions
	opened           [2]atomic.Uint32 // how often it was opened for reading, for writing
}

// New makes a pipe that nobody has open.
func New() *Pipe {
	p := &Pipe{ring: make([]slot, DefaultSize/pageSize)}
	p.slots.Store(uint32(len(p.ring)))
	return p
}

func (p *Pipe) at(i uint32) *slot { return &p.ring[i&uint32(len(p.ring)-1)] }

func (p *Pipe) full() bool { return p.used.Load() >= p.slots.Load() }

func (p *Pipe) canRead() {
	p.rd.Wake(wait.Readable)
	p.both.Wake(wait.Readable)
}

func (p *Pipe) canWrite() {
	p.wr.Wake(wait.Writable)
	p.both.Wake(wait.Writable)
}

// take returns a page to fill.
func (p *Pipe) take() *page {
	if n := len(p.free); n > 0 {
		pg := p.free[n-1]
		p.free = p.free[:n-1]
		return pg
	}
	return new(page)
}

func (p *Pipe) give(pg *page) {
	if len(p.free) < kept {
		p.free = append(p.free, pg)
	}
}

// drop removes the oldest slot.
func (p *Pipe) drop() {
	s := p.at(p.head)
	p.give(s.page)
	*s = slot{}
	p.head++
	p.used.Add(^uint32(0))
}

// Read implements vfs.File.
func (p *Pipe) Read(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if io.Len() == 0 {
		return 0, nil
	}
	var n int64
	full := false
	err := d.Sleeper(c).Until(&p.rd, wait.Readable, wait.Forever, func() (err error) {
		n, full, err = p.read(io)
		return err
	})
	if full {
		p.canWrite()
	}
	return n, err
}

// read takes what there is. It reports whether the ring was full and is no more. linux.EAGAIN: nothing yet.
func (p *Pipe) read(io *uio.IO) (n int64, unblock bool, err error) {
	p.mu.Lock()
	if p.claimed {
		p.mu.Unlock()
		return 0, false, linux.EAGAIN
	}
	full := p.full()
	for p.used.Load() > 0 && io.Len() > 0 {
		s := p.at(p.head)
		want := int(min(io.Len(), int64(s.end-s.off)))
		var c int
		c, err = io.Write(s.page[s.off:][:want])
		if c < want {
			break // nothing of this page is taken, as on Linux
		}
		n += int64(c)
		s.off += uint16(c)
		packet := s.packet
		if packet || s.off == s.end {
			p.drop()
			unblock = full
		}
		if packet {
			break
		}
	}
	if n == 0 && err == nil && p.writers.Load() > 0 {
		err = linux.EAGAIN
	}
	p.mu.Unlock()
	if n > 0 {
		err = nil
	}
	return n, unblock, err
}

// Write implements vfs.File.
func (p *Pipe) Write(c *vfs.Caller, d *vfs.Description, io *uio.IO, _ *int64) (int64, error) {
	if io.Len() == 0 {
		return 0, nil
	}
	packet := d.Flags()&linux.O_DIRECT != 0
	n, err := p.write(io, packet, true)
	p.canRead() // even if there was no room: Linux does, and edge triggered epolls see it
	if s := d.Sleeper(c); err == linux.EAGAIN && s != nil {
		err = s.Until(&p.wr, wait.Writable, wait.Forever, func() error {
			m, err := p.write(io, packet, false)
			if m > 0 {
				n += m
				p.canRead()
			}
			return err
		})
	}
	if err == linux.EPIPE {
		c.SendSignal(linux.SIGPIPE)
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// write puts in what fits. linux.EAGAIN: there is more. first says that it is the beginning of a write(2), whose odd bytes may join
// the last page.
func (p *Pipe) write(io *uio.IO, packet, first bool) (n int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readers.Load() == 0 {
		return 0, linux.EPIPE
	}
	if odd := io.Len() % pageSize; first && odd > 0 && p.used.Load() > 0 {
		if s := p.at(p.head + p.used.Load() - 1); s.merge && int64(s.end)+odd <= pageSize {
			c, err := io.Read(s.page[s.end:][:odd])
			if err != nil {
				return 0, err
			}
			s.end += uint16(c)
			n = int64(c)
		}
	}
	for io.Len() > 0 {
		if p.full() {
			return n, linux.EAGAIN
		}
		pg := p.take()
		c, err := io.Read(pg[:])
		if err != nil {
			p.give(pg)
			return n, err
		}
		*p.at(p.head + p.used.Load()) = slot{page: pg, end: uint16(c), merge: !packet, packet: packet}
		p.used.Add(1)
		n += int64(c)
	}
	return n, nil
}

// Peek implements vfs.Peeker.
func (p *Pipe) Peek(c *vfs.Caller, d *vfs.Description, buf []byte, nonblock bool) (n int, err error) {
	s := c.Sleeper
	if nonblock {
		s = nil
	}
	err = s.Until(&p.rd, wait.Readable, wait.Forever, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.claimed || p.used.Load() == 0 && p.writers.Load() > 0 {
			return linux.EAGAIN
		}
		p.claimed = true
		n = p.peek(buf)
		return nil
	})
	return n, err
}

func (p *Pipe) peek(buf []byte) (n int) {
	for i := range p.used.Load() {
		s := p.at(p.head + i)
		if s.packet && n > 0 {
			break
		}
		c := copy(buf[n:], s.page[s.off:s.end])
		n += c
		if s.packet || n == len(buf) {
			break
		}
	}
	return n
}

// Consume implements vfs.Peeker.
func (p *Pipe) Consume(_ *vfs.Caller, _ *vfs.Description, n int) {
	p.mu.Lock()
	full := p.full()
	unblock := false
	for n > 0 && p.used.Load() > 0 {
		s := p.at(p.head)
		c := min(n, int(s.end-s.off))
		s.off += uint16(c)
		n -= c
		if s.packet || s.off == s.end {
			p.drop()
			unblock = full
		}
	}
	p.claimed = false
	p.mu.Unlock()
	p.canRead() // other readers waited for the claim
	if unblock {
		p.canWrite()
	}
}

// Poll implements vfs.File.
func (p *Pipe) Poll(d *vfs.Description) (ev wait.Events) {
	used := p.used.Load()
	if d.CanRead() {
		if used > 0 {
			ev |= wait.Readable
		}
		if p.writers.Load() == 0 && !p.unmet(d) {
			ev |= wait.Hup
		}
	}
	if d.CanWrite() {
		if used < p.slots.Load() {
			ev |= wait.Writable
		}
		if p.readers.Load() == 0 {
			ev |= wait.Err
		}
	}
	return ev
}

// Queue implements vfs.File.
func (p *Pipe) Queue(d *vfs.Description) *wait.Queue {
	switch {
	case !d.CanWrite():
		return &p.rd
	case !d.CanRead():
		return &p.wr
	}
	return &p.both
}

// Ioctl implements vfs.File: FIONREAD.
func (p *Pipe) Ioctl(c *vfs.Caller, _ *vfs.Description, req uint32, arg uint64) (uint64, error) {
	if req != linux.FIONREAD {
		return 0, linux.ENOTTY
	}
	return 0, c.PutInt(arg, int32(p.Len()))
}

// Len is how many bytes wait to be read.
func (p *Pipe) Len() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.used.Load() {
		s := p.at(p.head + i)
		n += int(s.end - s.off)
	}
	return n
}

// Release implements vfs.File.
func (p *Pipe) Release(d *vfs.Description) { p.leave(d.CanRead(), d.CanWrite()) }

func (p *Pipe) leave(read, write bool) {
	p.mu.Lock()
	if read {
		p.readers.Add(-1)
	}
	if write {
		p.writers.Add(-1)
	}
	if p.readers.Load() == 0 && p.writers.Load() == 0 {
		// A FIFO forgets what nobody read.
		for p.used.Load() > 0 {
			p.drop()
		}
		p.free = nil
	}
	p.mu.Unlock()
	for _, q := range [...]*wait.Queue{&p.rd, &p.wr, &p.both} {
		q.Wake(wait.Readable | wait.Writable | wait.Err | wait.Hup)
	}
}

// SetFlags implements vfs.FlagSetter: all can be changed, O_DIRECT at any time.
func (p *Pipe) SetFlags(*vfs.Caller, *vfs.Description, uint32, uint32) error { return nil }

// PipeSize implements vfs.Piper.
func (p *Pipe) PipeSize(*vfs.Description) int { return int(p.slots.Load()) * pageSize }

// SetPipeSize implements vfs.Piper: the capacity becomes n bytes, rounded up to a power of two of pages, which it returns. Errors:
// linux.EINVAL for more than 2 GiB, linux.EPERM for more than Max without CAP_SYS_RESOURCE, linux.EBUSY if what is in
// it would not fit.
func (p *Pipe) SetPipeSize(c *vfs.Caller, _ *vfs.Description, n int) (int, error) {
	size := uint32(n)
	if size > 1<<31 {
		return 0, linux.EINVAL
	}
	pages := uint32(1)
	for uint64(pages)*pageSize < uint64(size) {
		pages *= 2
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(pages) > len(p.ring) && pages*pageSize > Max && !c.Cred.Can(cred.SYS_RESOURCE) {
		return 0, linux.EPERM
	}
	used := p.used.Load()
	if pages < used {
		return 0, linux.EBUSY
	}
	ring := make([]slot, pages)
	for i := range used {
		ring[(p.head+i)&(pages-1)] = *p.at(p.head + i)
	}
	grew := p.full() && used < pages
	p.ring = ring
	p.slots.Store(pages)
	if grew {
		p.canWrite()
	}
	return int(pages) * pageSize, nil
}

// Same implements vfs.Piper.
func (p *Pipe) Same(other vfs.File) bool { o, ok := other.(*Pipe); return ok && o == p }
