package mm

import (
	"sort"
	"testing"

	"pgregory.net/rapid"

	"dinos/dkernel/frame"
	"dinos/kernel/linux"
)

// mfile is the model of a file: a value for each page.
type mfile struct {
	obj  *file // nil: of MAP_SHARED|MAP_ANONYMOUS
	data map[uint64]uint64
	size uint64
}

// mpage is the model of a page of an address space.
type mpage struct {
	prot, may int
	shared    bool
	file      *mfile
	index     uint64
	own       bool // has a value of its own
	val       uint64
	dontFork  bool
	wipe      bool
}

type mspace map[uint64]*mpage // by page number

// pair is an address space and its model.
type pair struct {
	s *Space
	m mspace
}

// arena is where fixed mappings go: in and around one page table's border.
const (
	arena      = uint64(0x7000_0000_0000) + 500*pageSize
	arenaPages = 48
)

type world struct {
	t      *rapid.T
	m      *machine
	files  []*mfile
	spaces []*pair
	next   uint64
	after  func() // looks at the state after every step
}

func (w *world) errorf(format string, a ...any) { w.t.Fatalf(format, a...) }

func (w *world) draw(label string, n int) int { return rapid.IntRange(0, n-1).Draw(w.t, label) }

func (w *world) pick() *pair { return w.spaces[w.draw("space", len(w.spaces))] }

// span chooses pages of the arena, or now and then of what was placed elsewhere.
func (w *world) span(p *pair) (addr, n uint64) {
	i := w.draw("page", arenaPages)
	n = uint64(1 + w.draw("pages", min(8, arenaPages-i)))
	addr = arena + uint64(i)*pageSize
	if w.draw("elsewhere", 6) == 0 {
		var all []uint64
		for page := range p.m {
			if page<<pageShift < arena || page<<pageShift >= arena+arenaPages*pageSize {
				all = append(all, page)
			}
		}
		if len(all) > 0 {
			sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
			addr = all[w.draw("which", len(all))] << pageShift
		}
	}
	return addr, n * pageSize
}

var prots = []int{0, linux.PROT_READ, rw, rw, rw, linux.PROT_WRITE, linux.PROT_EXEC, linux.PROT_READ | linux.PROT_EXEC, rw | linux.PROT_EXEC}

// free reports whether no page of the range is mapped.
func (m mspace) free(addr, n uint64) bool {
	for a := addr; a < addr+n; a += pageSize {
		if m[a>>pageShift] != nil {
			return false
		}
	}
	return true
}

// place is where n bytes go by themselves: the highest place below base.
func (m mspace) place(n, base uint64) uint64 {
	var pages []uint64
	for p := range m {
		pages = append(pages, p<<pageShift)
	}
	sort.Slice(pages, func(i, j int) bool { return pages[i] > pages[j] })
	high := base
	for _, p := range pages {
		if p < high && high-(p+pageSize) >= n && p+pageSize <= high {
			return high - n
		}
		high = min(high, p)
	}
	return high - n
}

func (w *world) mapStep() {
	p := w.pick()
	addr, n := w.span(p)
	a := MapArgs{Len: n, Prot: prots[w.draw("prot", len(prots))], Flags: linux.MAP_PRIVATE}
	page := mpage{prot: a.Prot, may: rw | linux.PROT_EXEC}
	if w.draw("shared", 2) == 0 {
		a.Flags = linux.MAP_SHARED
		page.shared = true
	}
	if w.draw("anon", 2) == 0 {
		a.Flags |= linux.MAP_ANONYMOUS
		if page.shared {
			page.file = &mfile{data: map[uint64]uint64{}, size: n >> pageShift}
		}
	} else {
		page.file = w.files[w.draw("file", len(w.files))]
		a.Object = page.file.obj
		a.Offset = uint64(w.draw("offset", 6)) * pageSize
		page.index = a.Offset >> pageShift
	}
	if w.draw("populate", 3) == 0 {
		a.Flags |= linux.MAP_POPULATE
	}
	want, wantErr := addr, error(nil)
	switch w.draw("where", 4) {
	case 0:
		want = p.m.place(n, p.s.tree.layout.MmapBase)
	case 1: // a hint
		a.Addr = addr
		if !p.m.free(addr, n) {
			want = p.m.place(n, p.s.tree.layout.MmapBase)
		}
	case 2:
		a.Addr = addr
		a.Flags |= linux.MAP_FIXED_NOREPLACE
		if !p.m.free(addr, n) {
			wantErr = linux.EEXIST
		}
	default:
		a.Addr = addr
		a.Flags |= linux.MAP_FIXED
	}
	if a.Object != nil {
		acc := page.file.obj.access
		if acc&MayWrite == 0 && page.shared {
			page.may &^= linux.PROT_WRITE
			if a.Prot&linux.PROT_WRITE != 0 {
				wantErr = linux.EACCES
			}
		}
	}
	got, err := p.s.Map(a)
	if err != wantErr || err == nil && got != want {
		w.errorf("Map(%#x, %#x, %#x, %#x) = %#x, %v; want %#x, %v", a.Addr, n, a.Prot, a.Flags, got, err, want, wantErr)
	}
	if err != nil {
		return
	}
	for i := range n >> pageShift {
		q := page
		q.index += i
		if a.Flags&linux.MAP_POPULATE != 0 && !q.shared && q.prot&linux.PROT_WRITE != 0 {
			q.val, q.own = q.value() // copied at once
		}
		p.m[got>>pageShift+i] = &q
	}
}

func (w *world) unmapStep() {
	p := w.pick()
	addr, n := w.span(p)
	if err := p.s.Unmap(addr, n); err != nil {
		w.errorf("Unmap: %v", err)
	}
	for a := addr; a < addr+n; a += pageSize {
		delete(p.m, a>>pageShift)
	}
}

func (w *world) protectStep() {
	p := w.pick()
	addr, n := w.span(p)
	prot := prots[w.draw("prot", len(prots))]
	var want error
	for a := addr; a < addr+n && want == nil; a += pageSize {
		if q := p.m[a>>pageShift]; q == nil {
			want = linux.ENOMEM
		} else if prot&^q.may != 0 {
			want = linux.EACCES
		}
	}
	if err := p.s.Protect(addr, n, prot); err != want {
		w.errorf("Protect(%#x, %#x, %d) = %v, want %v", addr, n, prot, err, want)
	}
	for a := addr; a < addr+n && want == nil; a += pageSize {
		p.m[a>>pageShift].prot = prot
	}
}

func (w *world) remapStep() {
	p := w.pick()
	addr, n := w.span(p)
	if w.draw("single", 2) == 0 {
		n = pageSize
	}
	to, newLen := w.span(p)
	if w.draw("same", 3) == 0 {
		newLen = n
	}
	how := linux.MREMAP_MAYMOVE * w.draw("move", 2)
	if how != 0 {
		how |= w.draw("fixed", 2) * linux.MREMAP_FIXED
		if newLen == n {
			how |= w.draw("keep", 2) * linux.MREMAP_DONTUNMAP
		}
	}
	got, err := p.s.Remap(addr, n, newLen, how, to)
	first := p.m[addr>>pageShift]
	if err != nil {
		over := how&linux.MREMAP_FIXED != 0 && to < addr+n && addr < to+newLen
		if first != nil && how&linux.MREMAP_MAYMOVE != 0 && min(n, newLen) == pageSize && !over {
			w.errorf("Remap(%#x, %#x, %#x, %d, %#x): %v", addr, n, newLen, how, to, err)
		}
		return
	}
	if first == nil {
		w.errorf("Remap of nothing succeeded")
	}
	var moved []*mpage
	for i := range newLen >> pageShift {
		q := *first
		q.index += i
		q.own, q.val = false, 0
		if i < n>>pageShift {
			old := p.m[addr>>pageShift+i]
			if old == nil {
				if got == addr { // a part of it was shrunk that begins with a hole
					moved = append(moved, nil)
					continue
				}
				w.errorf("Remap moved a hole")
			}
			q = *old
		}
		moved = append(moved, &q)
	}
	if got == addr && how&linux.MREMAP_FIXED == 0 && newLen > n && !p.m.free(addr+n, newLen-n) {
		w.errorf("Remap grew over something")
	}
	if how&linux.MREMAP_FIXED != 0 && got != to {
		w.errorf("Remap went to %#x, want %#x", got, to)
	}
	for i := range n >> pageShift {
		old := p.m[addr>>pageShift+i]
		if how&linux.MREMAP_DONTUNMAP != 0 && got != addr {
			old.own, old.val = false, 0
		} else {
			delete(p.m, addr>>pageShift+i)
		}
	}
	if how&linux.MREMAP_FIXED == 0 && got != addr && !p.m.free(got, newLen) {
		w.errorf("Remap moved over something at %#x", got)
	}
	for i, q := range moved {
		if q != nil {
			p.m[got>>pageShift+uint64(i)] = q
		}
	}
}

func (w *world) adviseStep() {
	p := w.pick()
	addr, n := w.span(p)
	advice := []int{linux.MADV_DONTNEED, linux.MADV_DONTNEED, linux.MADV_DONTFORK, linux.MADV_DOFORK, linux.MADV_WIPEONFORK,
		linux.MADV_KEEPONFORK, linux.MADV_RANDOM, linux.MADV_NORMAL, linux.MADV_POPULATE_READ}[w.draw("advice", 9)]
	var want error
	for a := addr; a < addr+n; a += pageSize {
		q := p.m[a>>pageShift]
		if q == nil {
			want = linux.ENOMEM
			continue
		}
		if advice == linux.MADV_WIPEONFORK && (q.file != nil || q.shared) {
			want = linux.EINVAL // what comes before it is changed
			break
		}
		switch advice {
		case linux.MADV_DONTNEED:
			q.own, q.val = false, 0
		case linux.MADV_DONTFORK, linux.MADV_DOFORK:
			q.dontFork = advice == linux.MADV_DONTFORK
		case linux.MADV_WIPEONFORK, linux.MADV_KEEPONFORK:
			q.wipe = advice == linux.MADV_WIPEONFORK
		}
	}
	err := p.s.Advise(addr, n, advice)
	if advice == linux.MADV_POPULATE_READ && want == nil {
		return // the first page that cannot be read decides
	}
	if err != want {
		w.errorf("Advise(%#x, %#x, %d) = %v, want %v", addr, n, advice, err, want)
	}
}

func (w *world) forkStep() {
	if len(w.spaces) == 3 {
		i := w.draw("exit", 3)
		w.spaces[i].s.Put()
		w.spaces = append(w.spaces[:i], w.spaces[i+1:]...)
		return
	}
	p := w.pick()
	c, err := p.s.Fork()
	if err != nil {
		w.errorf("Fork: %v", err)
	}
	m := mspace{}
	for a, q := range p.m {
		if q.dontFork {
			continue
		}
		r := *q
		if q.wipe {
			r.own, r.val = false, 0
		}
		m[a] = &r
	}
	w.spaces = append(w.spaces, &pair{c, m})
}

func (w *world) truncateStep() {
	f := w.files[w.draw("file", len(w.files))]
	if f.obj == nil {
		return
	}
	if w.draw("punch", 3) == 0 {
		i := uint64(w.draw("page", 8))
		if err := f.obj.Punch(i*pageSize, pageSize); err != nil {
			w.errorf("Punch: %v", err)
		}
		delete(f.data, i)
		return
	}
	f.size = uint64(w.draw("size", 12))
	f.obj.resize(f.size)
	for i := range f.data {
		if i >= f.size {
			delete(f.data, i)
		}
	}
	for _, p := range w.spaces {
		for _, q := range p.m {
			if q.file == f && q.index >= f.size {
				q.own, q.val = false, 0
			}
		}
	}
}

// accessStep writes and reads pages.
func (w *world) accessStep() {
	p := w.pick()
	addr, n := w.span(p)
	write := w.draw("write", 3) != 0
	for a := addr; a < addr+n; a += pageSize {
		if write {
			w.next++
			w.write(p, a, w.next)
		} else {
			w.read(p, a)
		}
	}
}

func (q *mpage) value() (uint64, bool) {
	if q == nil || q.prot == 0 {
		return 0, false
	}
	switch {
	case q.file == nil:
		return q.val, true
	case q.index >= q.file.size:
		return 0, false
	case q.own:
		return q.val, true
	}
	return q.file.data[q.index], true
}

func (w *world) read(p *pair, a uint64) {
	want, ok := p.m[a>>pageShift].value()
	got, err := p.s.Load64(a + 8)
	if (err == nil) != ok || got != want {
		w.errorf("word at %#x is %d, %v; want %d, %v (%+v)", a, got, err, want, ok, p.m[a>>pageShift])
	}
}

func (w *world) write(p *pair, a, v uint64) {
	q := p.m[a>>pageShift]
	_, ok := q.value()
	ok = ok && q.prot&linux.PROT_WRITE != 0
	if err := p.s.Store64(a+8, v); (err == nil) != ok {
		w.errorf("write to %#x: %v, want %v (%+v)", a, err, ok, q)
	}
	switch {
	case !ok:
	case q.shared:
		q.file.data[q.index] = v
	default:
		q.own, q.val = true, v
	}
}

// compare reads everything and checks the trees.
func (w *world) compare() {
	for _, p := range w.spaces {
		if err := p.s.tree.check(); err != nil {
			w.errorf("%v", err)
		}
		total := uint64(0)
		for _, r := range p.s.Regions(0, 1<<20) {
			for a := r.Start; a < r.End; a += pageSize {
				q := p.m[a>>pageShift]
				if q == nil || q.prot != r.Prot || q.shared != r.Shared {
					w.errorf("region %+v at %#x, want %+v", r, a, q)
				}
				if q.file != nil && r.Offset+(a-r.Start) != q.index<<pageShift {
					w.errorf("region %+v at %#x, want page %d", r, a, q.index)
				}
				total++
			}
		}
		if total != uint64(len(p.m)) {
			w.errorf("%d pages are mapped, want %d", total, len(p.m))
		}
		for a := range p.m {
			w.read(p, a<<pageShift)
		}
	}
}

func (w *world) step() {
	switch w.draw("step", 12) {
	case 0, 1, 2:
		w.mapStep()
	case 3:
		w.unmapStep()
	case 4:
		w.protectStep()
	case 5:
		w.remapStep()
	case 6:
		w.adviseStep()
	case 7:
		w.forkStep()
	case 8:
		w.truncateStep()
	default:
		w.accessStep()
	}
}

func testModel(t *testing.T, steps int, logged bool, change func(*Config)) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(t, 8, change)
		tables := m.tables.left()
		w := &world{t: rt, m: m}
		for i := range 3 {
			f := m.file(8)
			f.notify = i == 1
			if i == 2 {
				f.access = MayRead
			}
			w.files = append(w.files, &mfile{obj: f, data: map[uint64]uint64{}, size: 8})
		}
		s := m.space()
		w.spaces = []*pair{{s, mspace{}}}
		same := func() error { return nil }
		if logged {
			var err error
			if same, err = promote(m, s); err != nil {
				rt.Fatal(err)
			}
		}
		alive := func() bool { return len(w.spaces) > 0 && w.spaces[0].s == s }
		for range rapid.IntRange(1, steps).Draw(rt, "steps") {
			w.step()
			if logged && alive() {
				if err := same(); err != nil {
					rt.Fatal(err)
				}
			}
			if len(w.spaces) == 0 {
				break
			}
			w.compare()
		}
		for _, p := range w.spaces {
			p.s.Put()
		}
		if logged {
			return // the second replica still has its tables
		}
		for _, f := range w.files {
			f.obj.resize(0)
			if f.obj.refs.Load() != 1 || !f.obj.maps.Empty() {
				rt.Fatalf("file has %d references", f.obj.refs.Load())
			}
		}
		if st := m.pool.Stats(); st.Used != 1 {
			rt.Fatalf("%d frames leaked", st.Used-1)
		}
		if got := m.tables.left(); got != tables {
			rt.Fatalf("%d tables leaked", tables-got)
		}
		if n, _ := m.sys.Committed(); n != 0 {
			rt.Fatalf("%d promised pages leaked", n)
		}
	})
}

func TestModel(t *testing.T)           { testModel(t, 60, false, nil) }
func TestModelReplicated(t *testing.T) { testModel(t, 40, true, nil) }

func TestModelAround(t *testing.T) {
	testModel(t, 40, false, func(c *Config) {
		c.AnonAround = 16
		c.Executable = func(_ Object, _ uint64, f frame.Frame) (frame.Frame, error) { return f, nil }
	})
}
