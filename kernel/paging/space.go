// Package paging edits x86-64 four-level page tables (Intel SDM vol. 3A §4.5).
//
// It is pure: tables are reached through a Window, a slice over the direct map, and
// their frames come from a Frames. Nothing is allocated on the Go heap and no
// pointer is stored except by Init, InitUser and Attach, so that the other
// functions may run inside the Go runtime's own mmap calls.
//
// # Translation caches
//
// No function executes a privileged instruction. What a processor may still
// have cached is returned as a Flush; the caller invalidates it on every
// processor that may use the tables, then calls Space.Release, which gives back
// the tables that were emptied. Frames of removed leaves must not be reused
// before that either. Making a mapping, and giving a mapping more rights, needs no
// flush: x86 does not cache absent entries, and a processor with an
// old, stricter entry takes a page fault that the caller resolves by retrying.
//
// # Errors
//
// A method that returns an error has changed nothing. Frames for tables are taken
// before the first entry is written, so that ErrNoMemory leaves no trace.
//
// # Concurrency
//
// The caller serialises methods that change a Space. Entries are read and written
// atomically and the processor's updates of Accessed and Dirty are not lost.
// Lookup and Walk may run beside a writer as long as the tables they pass are not
// released; those of the kernel half never are unless Reclaim is ReclaimAll.
package paging

// Error is the type of this package's errors, which are constants: returning one
// allocates nothing.
type Error uint8

// Errors.
const (
	ErrNoMemory     Error = iota + 1 // no frame for a table
	ErrMapped                        // something is mapped in the range
	ErrNotMapped                     // nothing is mapped at the address
	ErrMisaligned                    // address or length is no multiple of the page size, or length is 0
	ErrNonCanonical                  // the range leaves its half of the address space
	ErrPhysRange                     // physical range beyond 52 bits
	ErrBadAttr                       // unknown attribute bits, or no such page size
	ErrNotUniform                    // the leaves to merge are not one aligned run with equal attributes
)

var errorText = [...]string{
	ErrNoMemory:     "paging: out of memory for a page table",
	ErrMapped:       "paging: range is already mapped",
	ErrNotMapped:    "paging: address is not mapped",
	ErrMisaligned:   "paging: address or length is zero or misaligned",
	ErrNonCanonical: "paging: address range is not canonical",
	ErrPhysRange:    "paging: physical address exceeds 52 bits",
	ErrBadAttr:      "paging: unknown attribute or page size",
	ErrNotUniform:   "paging: pages do not form one large page",
}

func (e Error) Error() string {
	if int(e) < len(errorText) && errorText[e] != "" {
		return errorText[e]
	}
	return "paging: unknown error"
}

// Frames provides the frames that tables live in. They must lie in the Space's
// Window; their contents need not be clear.
type Frames interface {
	// AllocTable returns the physical address of a frame, false if there is none.
	AllocTable() (phys uint64, ok bool)
	FreeTable(phys uint64)
}

// Window gives access to physical memory as tables: Tables[i] is the frame at
// physical address Base + i*4096. In a kernel it spans the direct map. An entry that
// points outside is a corrupt table and panics.
type Window struct {
	Base   uint64
	Tables []Table
}

func (w *Window) table(phys uint64) *Table {
	return &w.Tables[(phys&addrMask-w.Base)>>12]
}

// Reclaim says which emptied tables Unmap gives back.
type Reclaim uint8

// Values of Reclaim. The tables that PrepareKernelHalf made are never given back.
const (
	ReclaimUser Reclaim = iota // those of the lower half
	ReclaimNone
	ReclaimAll
)

// Space is one address space.
type Space struct {
	Reclaim Reclaim

	window   Window
	frames   Frames
	root     *Table
	rootPhys uint64
}

// Init makes s an empty address space. It keeps w and f.
func (s *Space) Init(w Window, f Frames) error {
	phys, ok := f.AllocTable()
	if !ok {
		return ErrNoMemory
	}
	*w.table(phys) = Table{}
	s.Attach(w, f, phys)
	return nil
}

// InitUser makes s an address space with the kernel half of kernel; ErrNotMapped if
// that has not been prepared by PrepareKernelHalf.
func (s *Space) InitUser(kernel *Space) error {
	return s.InitUserIn(kernel, kernel.frames)
}

// InitUserIn is InitUser with frames of its own for tables; they lie in kernel's window.
func (s *Space) InitUserIn(kernel *Space, frames Frames) error {
	for i := uint64(256); i < 512; i++ {
		if kernel.root.load(i) == 0 {
			return ErrNotMapped
		}
	}
	if err := s.Init(kernel.window, frames); err != nil {
		return err
	}
	for i := uint64(256); i < 512; i++ {
		s.root.store(i, kernel.root.load(i))
	}
	return nil
}

// Attach makes s the address space whose PML4 table is at phys, such as the one
// that the kernel was started with.
func (s *Space) Attach(w Window, f Frames, phys uint64) {
	*s = Space{window: w, frames: f, root: w.table(phys), rootPhys: phys}
}

// Root returns the physical address of the PML4 table, the value for CR3.
func (s *Space) Root() uint64 { return s.rootPhys }

// PrepareKernelHalf makes tables for all absent entries 256 to 511 of the PML4
// (at most 1 MiB), so that address spaces made by InitUser share every later
// mapping of the kernel half.
func (s *Space) PrepareKernelHalf() error {
	n := 0
	for i := uint64(256); i < 512; i++ {
		if s.root.load(i) == 0 {
			n++
		}
	}
	var c chain
	if !s.take(&c, n) {
		return ErrNoMemory
	}
	for i := uint64(256); i < 512; i++ {
		if s.root.load(i) == 0 {
			s.root.store(i, s.pop(&c)|tableBits)
		}
	}
	return nil
}

// Destroy removes every mapping of the lower half, each shown to visit (which may
// be nil), and gives back its tables and the root. No processor may be using s; it
// must not be used afterwards.
func (s *Space) Destroy(visit func(Leaf)) {
	s.Reclaim = ReclaimUser
	f, _ := s.Unmap(0, 1<<47, visit) // whole leaves only: no table is needed, so no error
	s.Release(&f)
	s.frames.FreeTable(s.rootPhys)
}

// check returns the 48-bit linear range of [va, va+n).
func check(va, n uint64) (lin, end uint64, err error) {
	if (va|n)&(Size4K-1) != 0 || n == 0 {
		return 0, 0, ErrMisaligned
	}
	last := va + n - 1
	if last < va || canonical(va) != va || canonical(last) != last || (va^last)>>63 != 0 {
		return 0, 0, ErrNonCanonical
	}
	lin = va & (1<<48 - 1)
	return lin, lin + n, nil
}

// find descends towards lin and returns the entry that decides, with its table
// and level: a leaf or 0. It is unrolled: every single-page operation begins here.
func (s *Space) find(lin uint64) (t *Table, level int, e uint64) {
	t = s.root
	if e = t.load(lin >> 39); !isTable(e) {
		return t, levelPML4, e
	}
	t = s.window.table(e)
	if e = t.load(lin >> 30); !isTable(e) {
		return t, levelPDPT, e
	}
	t = s.window.table(e)
	if e = t.load(lin >> 21); !isTable(e) {
		return t, levelPD, e
	}
	t = s.window.table(e)
	return t, levelPT, t.load(lin >> 12)
}

// Lookup returns the leaf that contains va, which needs no alignment.
func (s *Space) Lookup(va uint64) (Leaf, error) {
	if canonical(va) != va {
		return Leaf{}, ErrNonCanonical
	}
	_, level, e := s.find(va & (1<<48 - 1))
	if e == 0 {
		return Leaf{}, ErrNotMapped
	}
	return leafOf(va&(1<<48-1), e, level), nil
}

// Walk shows visit, in order, every leaf that overlaps [va, va+n), until it
// returns false. Absent tables are passed in one step.
func (s *Space) Walk(va, n uint64, visit func(Leaf) bool) error {
	lin, end, err := check(va, n)
	if err == nil {
		s.walk(s.root, levelPML4, lin, end, visit)
	}
	return err
}

func (s *Space) walk(t *Table, level int, lin, end uint64, visit func(Leaf) bool) bool {
	size := uint64(1) << shift(level)
	for lin < end {
		next := min(end, lin&^(size-1)+size)
		if e := t.load(index(lin, level)); e != 0 {
			if level > levelPT && isTable(e) {
				if !s.walk(s.window.table(e), level-1, lin, next, visit) {
					return false
				}
			} else if !visit(leafOf(lin, e, level)) {
				return false
			}
		}
		lin = next
	}
	return true
}
