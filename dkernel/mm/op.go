package mm

import (
	"encoding/binary"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// Kinds of operations. opLook and opView change nothing.
const (
	opLook uint32 = 1 + iota
	opView        // calls tree.views[Addr]
	opMap
	opUnmap
	opProtect
	opRemap
	opBrk
	opGrow
	opAdvise
	opZap
	opClean
	opLock
	opInstall
	opReuse
	opAround
	opFork
	opForked
	opSetBrk
	opFuture
)

// Modes of opMap.
const (
	modeFixed uint64 = 1 << iota
	modeNoReplace
	mode32Bit
)

// What opInstall puts in place.
const (
	putOwn    = 1 << iota // a page of the address space's own
	putWrite              // a page of an object, which may be written
	putZero               // the page of zeros
	putCopyOf             // Old is what is replaced
)

// op is an operation on an address space, as it travels in a log: a value without pointers. Addresses and lengths are in bytes and
// whole pages, limits in pages. Who applies it trusts none of it.
type op struct {
	Kind       uint32
	Issuer     uint32 // replica whose goroutine waits for the result: it takes care of the frames that are removed
	Addr, Len  uint64
	To, ToLen  uint64
	Flags      uint64 // of the vma, rights, advice, or what to put
	Mode       uint64
	Object     uint64 // a binding's handle, or the ID of contents
	Off        uint64 // page index in the object
	Frame, Old uint64
	Epoch      uint64 // the tree's, when what the issuer decided by was read
	LimitAS    uint64
	LimitData  uint64
	LimitLock  uint64
	MaxMaps    uint64
}

// resp is the result of an op for its issuer.
type resp struct {
	err     linux.Errno
	mask    uint64 // opAround: the frames that were taken
	addr    uint64
	account int64   // change of the pages that count towards what the system has promised
	out     *gather // what was removed, nil if nothing
}

// both is what comes out of a log: of an update resp, of opLook look.
type both struct {
	resp
	look
}

// seen is what opLook found at an address.
type seen uint8

const (
	seenFine   seen = iota // the access is possible
	seenNone               // nothing is mapped
	seenDenied             // not with these rights
	seenGrow               // the stack above must grow first
	seenAnon               // a page that has not been there yet
	seenFile               // a page of the object, absent or to be made writable
	seenCopy               // a shared frame, to be copied; the issuer got a reference
	seenReuse              // a frame that nobody else has any more
	seenWait               // a fork is under way
)

// look describes the mapping at an address and its page.
type look struct {
	seen       seen
	flags      flags
	bind       *binding
	start, end uint64 // of the vma
	index      uint64 // page in the object
	old        frame.Frame
	epoch      uint64
}

// gather is what an op has taken out of an address space, until no processor can use it any more.
type gather struct {
	frames []frame.Frame
	flush  paging.Flush
	ranges [1]Range
	dead   []*binding
}

// Attributes of leaves.
const (
	leafOwn   = paging.Soft0 // the frame belongs to the address space, not to an object
	leafOwned = paging.Soft1 // it may be made writable without asking anybody: nobody shares it, or the object knows

	leafBits = paging.User | paging.Accessed | paging.Dirty
)

// Apply and Read make a tree an nr.Structure.
func (t *tree) Apply(o op) (r both) {
	t.do(&o, nil, &r.resp)
	return r
}

// Read serves opLook and opView.
func (t *tree) Read(o op) (r both) {
	if o.Kind == opView {
		if f := t.views[o.Addr%maxHandles]; f != nil {
			f(t)
		}
		return r
	}
	t.look(o.Addr, flags(o.Flags), &r.look)
	return r
}

// ApplyOperand is Apply with a list of frames: opAround.
func (t *tree) ApplyOperand(o op, data []byte) (r both) {
	var frames [maxAround]frame.Frame
	n := min(len(data)/8, len(frames))
	for i := range n {
		frames[i] = frame.Frame(binary.LittleEndian.Uint64(data[8*i:]))
	}
	t.do(&o, frames[:n], &r.resp)
	return r
}

// ReadOperand is Read.
func (t *tree) ReadOperand(o op, _ []byte) both { return t.Read(o) }

// do applies o.
func (t *tree) do(o *op, frames []frame.Frame, r *resp) {
	t.mine = o.Issuer == t.id
	account := t.count.account
	switch o.Kind {
	case opMap:
		r.addr, r.err = t.mapRange(o)
	case opUnmap:
		r.err = t.unmapOp(o)
	case opProtect:
		r.err = t.protect(o)
	case opRemap:
		r.addr, r.err = t.remap(o)
	case opBrk:
		r.addr, r.err = t.setBreak(o)
	case opSetBrk:
		t.brkStart, t.brk = o.Addr, o.Addr
	case opGrow:
		r.err = t.grow(o)
	case opAdvise:
		r.err = t.advise(o)
	case opZap, opClean:
		t.invalidate(o)
	case opLock:
		r.err = t.lock(o)
	case opFuture:
		t.future = flags(o.Flags) & (vmLocked | vmOnFault)
	case opInstall:
		r.err = t.install(o)
	case opReuse:
		r.err = t.reuse(o)
	case opAround:
		r.mask, r.err = t.around(o, frames)
	case opFork:
		r.err = t.fork()
	case opForked:
		t.forking = max(t.forking-1, 0)
	default:
		r.err = linux.ENOSYS
	}
	r.account = int64(t.count.account - account)
	if t.mine {
		r.out, t.out = t.out, nil // with what operations of other replicas have left
	}
}
