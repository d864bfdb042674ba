package mm

import (
	"dinos/dkernel/frame"
	"dinos/kernel/linux"
)

// Outcome is what became of a page fault.
type Outcome uint8

// Outcomes.
const (
	Resolved Outcome = iota // let the program go on
	MapError                // SIGSEGV with SEGV_MAPERR
	AccError                // SIGSEGV with SEGV_ACCERR
	BusError                // SIGBUS with BUS_ADRERR
	NoMemory                // no frame, nor memory for a table: somebody has to give way
)

// Fault resolves a page fault at addr. prot is what the access needs: linux.PROT_READ, PROT_WRITE or PROT_EXEC. It may block.
//
// The order is the same for every kind of page: look, under the lock of reading; get the frame and its contents, without any
// lock; install it by an operation that checks that what it is for is still there; begin again if not.
func (s *Space) Fault(addr uint64, prot int) Outcome {
	addr &^= pageSize - 1
	if addr >= userTop {
		return MapError
	}
	for {
		var l look
		s.engine.read(addr, prot, &l)
		switch l.seen {
		case seenFine:
			return Resolved
		case seenNone:
			return MapError
		case seenDenied:
			return AccError
		case seenGrow:
			g := s.do(s.limited(&op{Kind: opGrow, Addr: addr, ToLen: s.limStack.Load()}))
			if g.err != 0 {
				return MapError
			}
		case seenWait:
			s.forkMu.Lock()
			s.forkMu.Unlock() //nolint:staticcheck // a fork is under way: wait for its end
		case seenReuse:
			s.do(&op{Kind: opReuse, Addr: addr, Old: uint64(l.old), Epoch: l.epoch})
		default:
			out, again := s.bring(addr, prot, &l)
			if !again {
				return out
			}
		}
	}
}

// bring gets the page that l asks for and installs it; again if it came too late.
func (s *Space) bring(addr uint64, prot int, l *look) (out Outcome, again bool) {
	write := prot&linux.PROT_WRITE != 0
	switch l.seen {
	case seenAnon:
		if !write {
			return s.put(&op{Kind: opInstall, Addr: addr, Frame: uint64(s.sys.zero), Flags: putZero})
		}
		if n := s.ahead(addr, l); n > 1 {
			return s.bringAnon(addr, n)
		}
		f, err := s.sys.frames.AllocZero()
		if err != nil {
			return NoMemory, false
		}
		return s.put(&op{Kind: opInstall, Addr: addr, Frame: uint64(f), Flags: putOwn})
	case seenCopy:
		return s.bringCopy(addr, l.old)
	default:
		return s.bringFile(addr, write, l)
	}
}

// put applies an opInstall. What it does not take is freed.
func (s *Space) put(o *op) (out Outcome, again bool) {
	r := s.do(o)
	if r.err == 0 {
		return Resolved, false
	}
	s.sys.unref(frame.Frame(o.Frame))
	if r.err == stale {
		return Resolved, true
	}
	return NoMemory, false
}

// ahead is how many pages a write to fresh anonymous memory at addr should bring: more than one where a program goes through its
// memory in order.
func (s *Space) ahead(addr uint64, k *look) int {
	n := s.sys.anonAround
	if n == 1 || s.lastAnon.Swap(addr+pageSize) != addr || k.flags&vmRandom != 0 {
		return 1
	}
	end := min(k.end, addr&^(maxAround*pageSize-1)+maxAround*pageSize)
	n = min(n, int((end-addr)>>pageShift))
	s.lastAnon.Store(addr + uint64(n)*pageSize)
	return n
}

// bringAnon installs n fresh pages from addr on.
func (s *Space) bringAnon(addr uint64, n int) (out Outcome, again bool) {
	var frames [maxAround]frame.Frame
	for i := range n {
		f, err := s.sys.frames.AllocZero()
		if err != nil {
			if i == 0 {
				return NoMemory, false
			}
			n = i
			break
		}
		frames[i] = f
	}
	return s.putAround(&op{Kind: opAround, Addr: addr, Flags: putOwn}, frames[:n], 0)
}

// putAround applies an opAround for a fault at its page at. The frames that it does not take are freed.
func (s *Space) putAround(o *op, frames []frame.Frame, at int) (out Outcome, again bool) {
	var r resp
	s.engine.applyFrames(o, frames, &r)
	s.finish(&r)
	for i, f := range frames {
		if r.mask&(1<<i) == 0 {
			s.sys.unref(f)
		}
	}
	switch {
	case r.mask&(1<<at) != 0:
		return Resolved, false
	case r.err == linux.ENOMEM:
		return NoMemory, false
	}
	return Resolved, true
}

// bringCopy replaces old, to which there is a reference, by a copy.
func (s *Space) bringCopy(addr uint64, old frame.Frame) (out Outcome, again bool) {
	f, err := s.sys.frames.Alloc()
	if err != nil {
		s.sys.unref(old)
		return NoMemory, false
	}
	if old == s.sys.zero {
		s.sys.frames.Zero(f)
	} else {
		s.sys.frames.Copy(f, old)
	}
	out, again = s.put(&op{Kind: opInstall, Addr: addr, Frame: uint64(f), Old: uint64(old), Flags: putOwn | putCopyOf})
	s.sys.unref(old)
	return out, again
}

// bringFile installs a page of an object.
func (s *Space) bringFile(addr uint64, write bool, k *look) (out Outcome, again bool) {
	b := k.bind
	if !b.keep() {
		return Resolved, true // unmapped meanwhile
	}
	defer s.unpin(b, 1)
	shared := k.flags&vmShared != 0
	// The object is told now of writes that nobody will tell it of later.
	dirty := shared && (write || k.flags&vmWrite != 0 && !b.notify)
	f, err := b.obj.Page(k.index, dirty)
	if err != nil {
		if err == linux.ENOMEM {
			return NoMemory, false
		}
		return BusError, false
	}
	ours := s.sys.exec != nil && k.flags&(vmExec|vmShared) == vmExec
	if ours {
		if f, err = s.sys.exec(b.obj, k.index, f); err != nil {
			return NoMemory, false
		}
	}
	o := op{Kind: opInstall, Addr: addr, Frame: uint64(f), Object: b.handle, Off: k.index, Epoch: k.epoch, Old: uint64(k.old)}
	switch {
	case write && !shared:
		return s.bringPrivate(&o, f)
	case dirty:
		o.Flags = putWrite
	}
	if k.old != frame.None || k.flags&(vmRandom|vmRepeat) != 0 || ours || dirty && b.notify {
		return s.put(&o)
	}
	return s.bringAround(&o, f, k)
}

// bringPrivate installs a copy of f, which it consumes.
func (s *Space) bringPrivate(o *op, f frame.Frame) (out Outcome, again bool) {
	own, err := s.sys.frames.Alloc()
	if err != nil {
		s.sys.unref(f)
		return NoMemory, false
	}
	s.sys.frames.Copy(own, f)
	s.sys.unref(f)
	o.Frame, o.Flags = uint64(own), putOwn
	return s.put(o)
}

// bringAround installs f at o.Addr, and with it what the object has ready of the pages around, in an aligned window.
func (s *Space) bringAround(o *op, f frame.Frame, k *look) (out Outcome, again bool) {
	const window = maxAround * pageSize
	start := max(o.Addr&^(window-1), k.start)
	end := min(o.Addr&^(window-1)+window, k.end)
	at := int((o.Addr - start) >> pageShift)
	n := int((end - start) >> pageShift)
	if n == 1 {
		return s.put(o)
	}
	var frames [maxAround]frame.Frame
	if o.Flags&putWrite == 0 { // writable ones come one by one: each makes a page dirty
		k.bind.obj.Cached(o.Off-uint64(at), frames[:n])
	}
	s.sys.unref(frames[at])
	frames[at] = f
	o.Kind, o.Addr, o.Off, o.Frame, o.Old = opAround, start, o.Off-uint64(at), 0, 0
	return s.putAround(o, frames[:n], at)
}

// Starved reports whether an access by the kernel on behalf of a program failed for lack of memory since the last call: the
// program was told EFAULT, and somebody has to give way as after NoMemory.
func (s *Space) Starved() bool { return s.starved.Load() && s.starved.Swap(false) }
