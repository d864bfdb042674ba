package unix

import (
	"math/bits"
	"sync"

	"dinos/dkernel/vfs"
	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// packet is what one send put into a queue.
type packet struct {
	next   *packet
	data   []byte
	off    int // of data, what was read
	from   *sock
	charge int64 // memory, counted at from
	cred   linux.Ucred
	files  []*vfs.Description // with a reference each
	buf    []byte             // holds data; kept when the packet is
}

// unknown is whom a message is from that was sent while nobody wanted to know (SO_PASSCRED).
var unknown = linux.Ucred{UID: 65534, GID: 65534}

// Packets are kept, so that sending small messages and long streams allocates nothing. They are of two sizes, so that small messages
// that wait do not hold much memory; those in between are the garbage collector's.
const (
	smallSize = 512
	largeFrom = 16384
	largeSize = 65536
)

var (
	small = sync.Pool{New: func() any { return &packet{buf: make([]byte, smallSize)} }}
	large = sync.Pool{New: func() any { return &packet{buf: make([]byte, largeSize)} }}
)

// newPacket makes a packet for n bytes.
func newPacket(n int) *packet {
	var p *packet
	switch {
	case n <= smallSize:
		p = small.Get().(*packet)
	case n >= largeFrom && n <= largeSize:
		p = large.Get().(*packet)
	default:
		p = &packet{buf: make([]byte, n)}
	}
	p.data = p.buf[:n]
	return p
}

// charge is how much memory Linux counts for a message of n bytes, which is what the sizes of buffers are about: the head of a
// buffer in a power of two, the rest in pages. (skb->truesize; checked against SIOCOUTQ.)
func (s *sock) charge(n int) int64 {
	const (
		info       = 320 // struct skb_shared_info
		buffer     = 256 // struct sk_buff
		maxHead    = 1<<14 - info
		streamHead = 1<<12 - info
	)
	limit := maxHead
	if s.typ == linux.SOCK_STREAM {
		limit = streamHead
	}
	pages := 0
	if n > limit {
		pages = (n - limit + 4095) &^ 4095
		n = max(0, n-pages)
	}
	head := max(512, 1<<bits.Len(uint((n+63)&^63+info-1)))
	return int64(head + buffer + pages)
}

// free gives back the memory, and the files that nobody took. It must be in no queue, and no lock is held.
func (p *packet) free(sys *System) {
	if p.files != nil {
		sys.flight.land(p.files)
		for _, f := range p.files {
			f.Unref()
		}
	}
	p.uncharge()
	buf := p.buf
	*p = packet{buf: buf}
	switch len(buf) {
	case smallSize:
		small.Put(p)
	case largeSize:
		large.Put(p)
	}
}

// uncharge gives the sender its memory back. Who waits for it is woken when there is a lot.
func (p *packet) uncharge() {
	if s := p.from; s != nil {
		s.sent.Add(-p.charge)
		p.from = nil
		if s.writable() {
			s.q.Wake(wait.Writable | wait.WrBand)
		}
	}
}

// freeAll frees a list.
func (p *packet) freeAll(sys *System) {
	for p != nil {
		next := p.next
		p.free(sys)
		p = next
	}
}

// sender appends the address of who sent it to b, nothing if it has none.
func (p *packet) sender(b []byte) []byte {
	p.from.mu.Lock()
	defer p.from.mu.Unlock()
	if p.from.name == "" {
		return b
	}
	return address(p.from.name, b)
}

// What follows is called with mu held.

func (s *sock) enqueue(p *packet) {
	if s.tail != nil {
		s.tail.next = p
	} else {
		s.head = p
	}
	s.tail = p
	s.count++
}

// dequeue takes the first packet out.
func (s *sock) dequeue() *packet {
	p := s.head
	if s.head = p.next; s.head == nil {
		s.tail = nil
	}
	p.next = nil
	s.count--
	return p
}

// empty takes all out, as a list.
func (s *sock) empty() *packet {
	p := s.head
	s.head, s.tail, s.count = nil, nil, 0
	return p
}
