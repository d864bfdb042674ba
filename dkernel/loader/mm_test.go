package loader

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/frame"
	"dinos/dkernel/loader/elftest"
	"dinos/dkernel/mm"
	"dinos/kernel/linux"
	"dinos/kernel/paging"
)

// machine is what package mm needs below it: memory for frames and for page tables, and no processor.
type machine struct {
	kernel paging.Space
	mem    []paging.Table
	free   []uint64
	pool   *frame.Pool
	sys    *mm.System
	mu     sync.Mutex
	slices []uint64
}

const tableBase = 1 << 20

func (m *machine) AllocTable() (uint64, bool) {
	if len(m.free) == 0 {
		return 0, false
	}
	p := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	return p, true
}
func (m *machine) FreeTable(p uint64)               { m.free = append(m.free, p) }
func (m *machine) NewTables(pt *paging.Space) error { return pt.InitUserIn(&m.kernel, m) }
func (m *machine) Flush(*mm.Space, []mm.Range)      {}
func (m *machine) Retire(*mm.Space)                 {}
func (m *machine) Take() (uint64, error) {
	if len(m.slices) == 0 {
		return 0, linux.ENOMEM
	}
	n := m.slices[0]
	m.slices = m.slices[1:]
	return n, nil
}
func (m *machine) Give(n uint64) { m.slices = append(m.slices, n) }

func newMachine(t testing.TB) *machine {
	const tables, slices = 500, 4
	m := &machine{mem: make([]paging.Table, tables)}
	for i := range tables {
		m.free = append(m.free, tableBase+uint64(i)*pageSize)
	}
	require.NoError(t, m.kernel.Init(paging.Window{Base: tableBase, Tables: m.mem}, m))
	require.NoError(t, m.kernel.PrepareKernelHalf())
	for i := range uint64(slices) {
		m.slices = append(m.slices, i)
	}
	mem, err := syscall.Mmap(-1, 0, slices*frame.SliceSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	require.NoError(t, err)
	m.pool, err = frame.New(frame.Config{Memory: mem, Base: 1 << 40, Source: m})
	require.NoError(t, err)
	m.sys, err = mm.NewSystem(mm.Config{Frames: m.pool, Hardware: m,
		Memory: func() uint64 { return 1 << 30 / pageSize }})
	require.NoError(t, err)
	return m
}

// object is a file that can be mapped.
type object struct {
	m    *machine
	maps mm.Mappings
	data []byte
	refs int
}

func (o *object) ID() uint64             { return 7 }
func (o *object) Access() mm.Access      { return mm.MayRead }
func (o *object) Info() mm.Info          { return mm.Info{Name: "file"} }
func (o *object) Notify() bool           { return false }
func (o *object) Mappings() *mm.Mappings { return &o.maps }
func (o *object) Retain()                { o.refs++ }
func (o *object) Release()               { o.refs-- }
func (o *object) Page(index uint64, _ bool) (frame.Frame, error) {
	if index >= pageUp(uint64(len(o.data)))/pageSize {
		return frame.None, linux.ENXIO
	}
	f, err := o.m.pool.AllocZero()
	if err == nil {
		copy(o.m.pool.Bytes(f), o.data[index*pageSize:])
	}
	return f, err
}
func (o *object) Cached(_ uint64, dst []frame.Frame) { clear(dst) }
func (o *object) Sync(_, _ uint64, _ bool) error     { return nil }

// mmFile is an executable that is mapped by an object.
type mmFile struct {
	memFile
	obj *object
}

func (f *mmFile) Object() mm.Object { return f.obj }

func regions(s *mm.Space) string {
	m := space{}
	for _, r := range s.Regions(0, 1000) {
		x := &mapping{start: r.Start, end: r.End, prot: r.Prot, off: r.Offset}
		switch r.Info.Name {
		case "[stack]":
			x.grows = true
		case "file":
			x.obj = &memObject{}
		}
		m.maps = append(m.maps, x)
	}
	return m.list()
}

// TestRealSpace loads programs, good ones and mutants, into the address spaces that the kernel uses and into the model: mappings and
// memory are the same, and nothing is left behind.
func TestRealSpace(t *testing.T) {
	m := newMachine(t)
	used, tables := m.pool.Stats().Used, len(m.free)
	good := segmented(t)
	for _, typ := range []uint16{linux.ET_EXEC, linux.ET_DYN} {
		p, err := elftest.Args(typ)
		require.NoError(t, err)
		good = append(good, p)
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	loaded := 0
	for i := range 500 {
		data := good[i%len(good)]
		if i >= len(good) {
			data = mutant(rnd, good)
		}
		obj := &object{m: m, data: data}
		r := request(t, data, "program", "an argument")
		r.File = &mmFile{memFile{data: data}, obj}
		sys := randomSystem(uint64(i))
		sys.VDSO = nil
		p, err := Prepare(r, sys)
		if err != nil {
			continue
		}
		sys.Random = rand.New(rand.NewPCG(uint64(i), 2)).Uint64
		real, err := m.sys.NewSpace(p.Layout, mm.DefaultLimits)
		require.NoError(t, err)
		img, err := p.Load(real)

		p.File = &memFile{data: data}
		sys.Random = rand.New(rand.NewPCG(uint64(i), 2)).Uint64
		model := &space{layout: p.Layout, limit: 1 << 30}
		want, modelErr := p.Load(model)
		require.Equal(t, errnoOf(modelErr), errnoOf(err), "program %d: %v, %v", i, modelErr, err)
		if err == nil {
			loaded++
			require.Equal(t, want, img)
			if merge(model.list()) != merge(regions(real)) {
				require.Equal(t, model.list(), regions(real), "program %d", i)
			}
			compareMemory(t, model, real)
		}
		real.Put()
		require.Zero(t, obj.refs, "program %d", i)
		require.Equal(t, used, m.pool.Stats().Used, "program %d leaves frames behind", i)
		require.Equal(t, tables, len(m.free), "program %d leaves page tables behind", i)
	}
	require.Greater(t, loaded, 150)
}

// errnoOf is Errno, 0 for no error.
func errnoOf(err error) linux.Errno {
	if err == nil {
		return 0
	}
	return Errno(err)
}

func compareMemory(t testing.TB, model *space, real *mm.Space) {
	a, b := make([]byte, pageSize), make([]byte, pageSize)
	for _, mp := range model.maps {
		if mp.prot&linux.PROT_READ == 0 {
			continue
		}
		for addr := mp.start; addr < min(mp.end, mp.start+64*pageSize); addr += pageSize {
			n, err := model.CopyIn(a, addr)
			n2, err2 := real.CopyIn(b, addr)
			require.Equal(t, fmt.Sprint(n, err), fmt.Sprint(n2, err2), "%#x", addr)
			require.Equal(t, a, b, "%#x", addr)
		}
	}
}
