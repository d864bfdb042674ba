package unix

import (
	"sync"

	"dinos/dkernel/cred"
	"dinos/dkernel/vfs"
	"dinos/kernel/linux"
)

// maxFlight is how many files can be in queues of sockets altogether.
const maxFlight = 1 << 16

// flying is a socket in queues of sockets.
type flying struct {
	d *vfs.Description
	n int64 // how often
}

// flight is the files that were sent and not received. Sockets among them may be reachable only through queues of one another: they are
// found as Linux does (net/unix/garbage.c). Such a socket has all its references in queues, and, going from all sockets
// for which that is true, is not in the queue of one for which it is not.
//
// Lock order: flight.mu, then sock.mu.
type flight struct {
	mu    sync.Mutex
	files map[*sock]*flying
	count int // of files of all kinds
	busy  bool
}

// check tells whether n more files may be sent: linux.ETOOMANYREFS.
func (f *flight) check(c *vfs.Caller, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := maxFlight
	if !c.Cred.Can(cred.SYS_RESOURCE) && !c.Cred.Can(cred.SYS_ADMIN) {
		limit = min(limit, c.OpenLimit)
	}
	if f.count+n > limit {
		return linux.ETOOMANYREFS
	}
	return nil
}

// launch notes that files are on their way.
func (f *flight) launch(files []*vfs.Description) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count += len(files)
	for _, d := range files {
		if s, ok := d.File().(*sock); ok {
			x := f.files[s]
			if x == nil {
				x = &flying{d: d}
				f.files[s] = x
			}
			x.n++
		}
	}
}

// land undoes launch.
func (f *flight) land(files []*vfs.Description) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count -= len(files)
	for _, d := range files {
		if s, ok := d.File().(*sock); ok {
			if x := f.files[s]; x.n == 1 {
				delete(f.files, s)
			} else {
				x.n--
			}
		}
	}
}

// collect empties the queues of sockets that nobody can reach, which closes them.
func (f *flight) collect() {
	f.mu.Lock()
	if f.busy || len(f.files) == 0 {
		f.mu.Unlock()
		return
	}
	f.busy = true
	var garbage *packet
	var sys *System
	for s := range f.garbage() {
		sys = s.sys
		s.each(func(k *sock) {
			k.mu.Lock()
			for p := k.empty(); p != nil; {
				next := p.next
				p.next = garbage
				garbage = p
				p = next
			}
			k.mu.Unlock()
		})
	}
	f.mu.Unlock()
	if garbage != nil {
		garbage.freeAll(sys)
	}
	f.mu.Lock()
	f.busy = false
	f.mu.Unlock()
}

// each calls do for the socket and its connections that were not accepted: their queues are reached through it.
func (s *sock) each(do func(*sock)) {
	s.mu.Lock()
	pending := append([]*sock(nil), s.pending...)
	s.mu.Unlock()
	do(s)
	for _, k := range pending {
		do(k)
	}
}

// garbage returns the sockets that nobody can reach. mu is held.
func (f *flight) garbage() map[*sock]int64 {
	outside := map[*sock]int64{} // for candidates: in how many queues of others they are
	for s, x := range f.files {
		if x.d.Refs() == x.n {
			outside[s] = x.n
		}
	}
	children := func(s *sock, do func(*sock)) {
		s.each(func(k *sock) {
			k.mu.Lock()
			defer k.mu.Unlock()
			for p := k.head; p != nil; p = p.next {
				for _, d := range p.files {
					if t, ok := d.File().(*sock); ok {
						if _, ok := outside[t]; ok {
							do(t)
						}
					}
				}
			}
		})
	}
	for s := range outside {
		children(s, func(t *sock) { outside[t]-- })
	}
	var live []*sock
	for s, n := range outside {
		if n > 0 {
			live = append(live, s)
		}
	}
	for len(live) > 0 {
		s := live[len(live)-1]
		live = live[:len(live)-1]
		if _, ok := outside[s]; !ok {
			continue
		}
		var reached []*sock
		children(s, func(t *sock) { reached = append(reached, t) })
		delete(outside, s)
		live = append(live, reached...)
	}
	return outside
}
