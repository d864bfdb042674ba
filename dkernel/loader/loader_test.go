package loader

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/dkernel/cred"
	"dinos/dkernel/loader/elftest"
	"dinos/dkernel/mm"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

func request(t testing.TB, data []byte, argv ...string) *Request {
	args, err := NewArgs(argv, nil, 8<<20)
	require.NoError(t, err)
	return &Request{Path: "/bin/p", File: &memFile{data: data, attr: Attr{Mode: 0o755}}, Args: args, Cred: cred.Root(), StackLimit: 8 << 20}
}

func randomSystem(seed uint64) *System {
	rnd := rand.New(rand.NewPCG(seed, 1))
	return &System{Random: rnd.Uint64, VDSO: &memObject{data: make([]byte, pageSize), name: "[vdso]"}, VVar: &memObject{name: "[vvar]"}, VDSOSize: pageSize}
}

func load(t testing.TB, r *Request, sys *System) (*Program, *Image, *space) {
	p, err := Prepare(r, sys)
	require.NoError(t, err)
	s := &space{layout: p.Layout}
	img, err := p.Load(s)
	require.NoError(t, err)
	return p, img, s
}

// TestRandomLayout: every start is somewhere else, within Linux' limits, and nothing overlaps (the model would say so).
func TestRandomLayout(t *testing.T) {
	for _, typ := range []uint16{linux.ET_EXEC, linux.ET_DYN} {
		data, err := elftest.Hello(typ, "hello", 0)
		require.NoError(t, err)
		seen := map[string]map[uint64]bool{}
		for seed := range uint64(100) {
			p, img, s := load(t, request(t, data, "p"), randomSystem(seed))
			note := func(what string, v, low, high uint64) {
				require.GreaterOrEqual(t, v, low, what)
				require.LessOrEqual(t, v, high, what)
				if seen[what] == nil {
					seen[what] = map[uint64]bool{}
				}
				seen[what][v] = true
			}
			const top = uint64(1<<47 - 4096)
			note("stack", p.Layout.StackTop, top-1<<34-8192, top)
			note("mmap", p.Layout.MmapBase, top-1<<40-1<<34-16<<20, top-1<<34)
			require.Less(t, p.Layout.MmapBase, p.Layout.StackTop-8<<20, "room for the stack")
			note("vdso", img.VDSO, top-1<<40-1<<35, p.Layout.MmapBase)
			note("sp", img.SP, p.Layout.StackTop-8192-4096, p.Layout.StackTop)
			require.Zero(t, img.SP%16)
			if typ == linux.ET_EXEC {
				require.EqualValues(t, elftest.Base, img.CodeStart)
				note("brk", img.BrkStart, elftest.Base+0x21000, elftest.Base+0x21000+1<<30)
			} else {
				note("brk", img.BrkStart, 0x555555555000, 0x555555555000+1<<30)
				note("code", img.CodeStart, top-1<<40-1<<35, p.Layout.MmapBase)
			}
			require.Equal(t, img.BrkStart, s.brk)
		}
		for what, values := range seen {
			require.Greater(t, len(values), 90, what)
		}
	}
}

// TestStackLimitLayout: whatever the limit of the stack, there is room for it and for mappings.
func TestStackLimitLayout(t *testing.T) {
	data, err := elftest.Hello(linux.ET_EXEC, "hello", 0)
	require.NoError(t, err)
	for _, stack := range []uint64{0, 8 << 20, 1 << 40, ^uint64(0)} {
		for seed := range uint64(100) {
			r := request(t, data, "p")
			r.StackLimit = stack
			p, err := Prepare(r, randomSystem(seed))
			require.NoError(t, err)
			require.Less(t, p.Layout.MmapBase, p.Layout.StackTop-min(stack, 1<<40))
			require.Zero(t, (p.Layout.MmapBase|p.Layout.StackTop)%pageSize)
			require.Greater(t, p.Layout.MmapBase, uint64(1)<<40)
		}
	}
}

func TestLegacyLayout(t *testing.T) {
	data, err := elftest.Hello(linux.ET_DYN, "hello", 0)
	require.NoError(t, err)
	r := request(t, data, "p")
	r.Personality = linux.ADDR_COMPAT_LAYOUT | linux.ADDR_NO_RANDOMIZE | linux.READ_IMPLIES_EXEC | linux.MMAP_PAGE_ZERO
	p, err := Prepare(r, randomSystem(1))
	require.NoError(t, err)
	require.Equal(t, mm.Layout{MmapBase: 0x2aaaaaaab000, Legacy: true, StackTop: taskSize}, p.Layout)
	require.EqualValues(t, linux.ADDR_COMPAT_LAYOUT|linux.ADDR_NO_RANDOMIZE|linux.MMAP_PAGE_ZERO, p.Personality)
	s := &space{layout: p.Layout, low: true}
	img, err := p.Load(s)
	require.NoError(t, err)
	require.Equal(t, p.Layout.MmapBase, img.CodeStart)
	require.Contains(t, s.list(), "0-1000 r-xp 0\n")

	r = request(t, data, "p")
	r.Personality, r.StackLimit = linux.ADDR_NO_RANDOMIZE, ^uint64(0)
	p, err = Prepare(r, randomSystem(1))
	require.NoError(t, err)
	require.EqualValues(t, pageUp(taskSize/6+4), p.Layout.MmapBase, "no stack limit leaves a sixth for mappings")
}

// TestErrors: each refusal says what is wrong.
func TestErrors(t *testing.T) {
	seg := func(s elftest.Segment) []elftest.Segment { return []elftest.Segment{s} }
	const load = linux.PT_LOAD
	for _, c := range []struct {
		name string
		file elftest.File
		e    linux.Errno
		want string
	}{
		{"object file", elftest.File{Type: 1}, linux.ENOEXEC, "object file"},
		{"core", elftest.File{Type: 4}, linux.ENOEXEC, "core dump"},
		{"arm", elftest.File{Machine: 183}, linux.ENOEXEC, "ARM64"},
		{"riscv", elftest.File{Machine: 243}, linux.ENOEXEC, "RISC-V"},
		{"vax", elftest.File{Machine: 75}, linux.ENOEXEC, "another machine"},
		{"32 bits", elftest.File{Machine: 3, Raw: func(b []byte) []byte { b[4] = 1; return b }}, linux.ENOEXEC, "32-bit program"},
		{"big-endian", elftest.File{Machine: 2, Raw: func(b []byte) []byte { b[5] = 2; return b }}, linux.ENOEXEC, "big-endian"},
		{"text", elftest.File{Raw: func([]byte) []byte { return []byte("just text\n") }}, linux.ENOEXEC, "neither an ELF file nor a script"},
		{"no program headers", elftest.File{}, linux.ENOEXEC, "0 program headers"},
		{"many program headers", elftest.File{Phnum: 1171}, linux.ENOEXEC, "1171 program headers (e_phnum), not 1 to 1170"},
		{"program headers behind the end", elftest.File{Phnum: 1170}, linux.ENOEXEC, "outside of the file"},
		{"size of a program header", elftest.File{Phentsize: 32, Phnum: 1}, linux.ENOEXEC, "32 bytes (e_phentsize), not 56"},
		{"interpreter without end", elftest.File{Segments: seg(elftest.Segment{Type: linux.PT_INTERP, Off: 0x100, Filesz: 5, Data: []byte("/lib/ld")})},
			linux.ENOEXEC, "without end"},
		{"short interpreter", elftest.File{Segments: seg(elftest.Segment{Type: linux.PT_INTERP, Filesz: 1})}, linux.ENOEXEC, "1 bytes (PT_INTERP)"},
		{"long interpreter", elftest.File{Segments: seg(elftest.Segment{Type: linux.PT_INTERP, Filesz: 4097})}, linux.ENOEXEC, "4097 bytes (PT_INTERP)"},
		{"dynamic", elftest.File{Segments: seg(elftest.Segment{Type: linux.PT_INTERP, Off: 0x100, Filesz: 13, Data: []byte("/lib/ld.so.1\x00")})},
			linux.ELIBBAD, "dynamically linked (it asks for the interpreter /lib/ld.so.1); only static programs run here: link it with -static"},
		{"more in the file than in memory", elftest.File{Segments: seg(elftest.Segment{Type: load, Filesz: 2, Memsz: 1})}, linux.EINVAL, "2 bytes in the file"},
		{"wrap", elftest.File{Segments: seg(elftest.Segment{Type: load, Vaddr: 1 << 46, Memsz: 1 << 46})}, linux.EINVAL, "outside of a program's addresses"},
		{"kernel", elftest.File{Segments: seg(elftest.Segment{Type: load, Vaddr: 0xffff800000000000, Memsz: 1})}, linux.EINVAL, "outside of a program's addresses"},
		{"unaligned", elftest.File{Segments: seg(elftest.Segment{Type: load, Off: 4, Vaddr: 0x400008, Filesz: 1, Memsz: 1})}, linux.EINVAL, "not at the same place in a page"},
		{"offset", elftest.File{Segments: seg(elftest.Segment{Type: load, Off: 1<<63 - 4096, Vaddr: 0x400000, Filesz: 1, Memsz: 1})}, linux.EINVAL, "more than a file can have"},
		{"entry", elftest.File{Entry: 1 << 47, Segments: seg(elftest.Segment{Type: linux.PT_TLS})}, linux.EINVAL, "it starts at 0x800000000000"},
		{"empty PIE", elftest.File{Type: linux.ET_DYN, Segments: seg(elftest.Segment{Type: load, Memsz: 4096})}, linux.EINVAL, "nothing in the file"},
	} {
		opened := 1
		r := request(t, c.file.Bytes(), "p")
		r.File.(*memFile).opened = &opened
		_, err := Prepare(r, randomSystem(1))
		require.Equal(t, c.e, Errno(err), c.name)
		require.ErrorIs(t, err, c.e, c.name)
		require.ErrorContains(t, err, c.want, c.name)
		require.ErrorContains(t, err, "/bin/p: ", c.name)
		require.Zero(t, opened, c.name)
	}
	r := request(t, nil, "p")
	r.File.(*memFile).fail = linux.EIO
	_, err := Prepare(r, randomSystem(1))
	require.Equal(t, linux.EIO, Errno(err))
	require.Equal(t, "/bin/p: reading its start: input/output error", err.Error())
	require.Equal(t, linux.EIO, Errno(os.ErrClosed), "an error that is none of ours")
}

// TestHostBinary: the refusal of a real dynamic executable names its interpreter.
func TestHostBinary(t *testing.T) {
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Skip(err)
	}
	_, err = Prepare(request(t, data, "true"), randomSystem(1))
	require.Equal(t, linux.ELIBBAD, Errno(err))
	require.ErrorContains(t, err, "ld-linux")
}

// TestEveryFailure lets each call to the address space fail in turn: an error comes back, with its errno.
func TestEveryFailure(t *testing.T) {
	for _, data := range segmented(t) {
		calls := 0
		for n := 1; ; n++ {
			p, err := Prepare(request(t, data, "p"), randomSystem(1))
			require.NoError(t, err)
			s := &space{layout: p.Layout, failAt: n}
			_, err = p.Load(s)
			if s.calls < n {
				require.NoError(t, err)
				break
			}
			calls++
			require.Contains(t, []linux.Errno{linux.ENOMEM, linux.EFAULT}, Errno(err), "call %d", n)
			require.ErrorContains(t, err, "/bin/p: ")
		}
		require.Greater(t, calls, 7)
	}
}

// TestSmallStack: a limit below what the arguments take is an error before the program runs.
func TestSmallStack(t *testing.T) {
	data, err := elftest.Hello(linux.ET_EXEC, "hello", 0)
	require.NoError(t, err)
	r := request(t, data, strings.Repeat("x", 4000), strings.Repeat("y", 90000))
	for limit, ok := range map[uint64]bool{0: false, 4096: false, 65536: false, 120000: true, 1 << 20: true} {
		r.StackLimit = limit
		r.File = &memFile{data: data}
		r.Args, err = NewArgs(make([]string, 4000), []string{strings.Repeat("e", 60000)}, 8<<20)
		require.NoError(t, err)
		p, err := Prepare(r, randomSystem(1))
		require.NoError(t, err)
		s := &space{layout: p.Layout}
		_, err = p.Load(s)
		if ok {
			require.NoError(t, err, "%d", limit)
			continue
		}
		require.Equal(t, linux.E2BIG, Errno(err), "%d", limit)
		require.ErrorContains(t, err, "stack limit")
	}
}

// TestSecure: a set-id program gets its owner's ids, AT_SECURE, the default stack limit and no part in its caller's layout.
func TestSecure(t *testing.T) {
	data, err := elftest.Hello(linux.ET_EXEC, "hello", 0)
	require.NoError(t, err)
	r := request(t, data, "p")
	r.File.(*memFile).attr = Attr{Mode: 0o4755}
	r.Cred = &cred.Cred{UID: 1000, EUID: 1000, SUID: 1000, FSUID: 1000, GID: 5, EGID: 5, SGID: 5, FSGID: 5, Bounding: cred.AllCaps}
	r.Personality, r.StackLimit = linux.ADDR_NO_RANDOMIZE, 1<<40
	p, img, _ := load(t, r, randomSystem(1))
	require.True(t, p.Secure)
	require.Zero(t, p.Personality)
	require.EqualValues(t, 8<<20, p.StackLimit)
	for tag, want := range map[uint64]uint64{linux.AT_UID: 1000, linux.AT_EUID: 0, linux.AT_GID: 5, linux.AT_EGID: 5, linux.AT_SECURE: 1} {
		v, at := aux(img.Auxv, tag)
		require.GreaterOrEqual(t, at, 0)
		require.Equal(t, want, v, "tag %d", tag)
	}
	require.Equal(t, cred.AllCaps, p.Cred.Effective)
	require.EqualValues(t, 1000, r.Cred.EUID, "the caller's credentials are not touched")
}

func TestStart(t *testing.T) {
	f := ureg.Frame{RDX: 5, FSBase: 7, RFLAGS: 1, OrigRAX: 59}
	f.X[3][1] = 9
	(&Image{Entry: 1, SP: 2}).Start(&f)
	require.Equal(t, ureg.Frame{RIP: 1, RSP: 2, RFLAGS: 0x202, MXCSR: 0x1f80, OrigRAX: ureg.NoSyscall}, f)
}

func TestComm(t *testing.T) {
	for path, want := range map[string]string{"/bin/busybox": "busybox", "x": "x", "": "", "/a/": "", "/usr/bin/a-rather-long-name": "a-rather-long-n"} {
		require.Equal(t, want, comm(path))
	}
}

// FuzzLoad: any bytes give an errno or a program, and the address space is asked for sensible things only.
func FuzzLoad(f *testing.F) {
	for _, b := range segmented(f) {
		f.Add(b)
	}
	f.Add([]byte("#!/bin/sh -x\n"))
	f.Fuzz(func(t *testing.T, data []byte) { tryLoad(t, data) })
}

func tryLoad(t testing.TB, data []byte) {
	r := request(t, data, "p")
	r.Opener = newFilesNowhere()
	p, err := Prepare(r, randomSystem(1))
	if err != nil {
		require.NotEqual(t, linux.EIO, Errno(err))
		return
	}
	s := &space{layout: p.Layout, limit: 1 << 30}
	img, err := p.Load(s)
	if err != nil {
		require.NotZero(t, Errno(err))
		return
	}
	require.Less(t, img.Entry, uint64(taskSize))
	for i, m := range s.maps {
		require.Less(t, m.start, m.end)
		require.True(t, i == 0 || s.maps[i-1].end <= m.start)
	}
	var argc [8]byte
	_, err = s.CopyIn(argc[:], img.SP)
	require.NoError(t, err)
	require.EqualValues(t, 1, binary.LittleEndian.Uint64(argc[:]))
}

func newFilesNowhere() *files { return &files{} }

// TestMutants is FuzzLoad for every test run.
func TestMutants(t *testing.T) {
	good := segmented(t)
	rapid.Check(t, func(r *rapid.T) {
		seed := rapid.Uint64().Draw(r, "seed")
		rnd := rand.New(rand.NewPCG(seed, 0))
		for range 20 {
			tryLoad(t, mutant(rnd, good))
		}
	})
}

func BenchmarkExec(b *testing.B) {
	data, err := elftest.Hello(linux.ET_EXEC, "hello", 0)
	require.NoError(b, err)
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/root", "TERM=vt100", "LANG=C", "PWD=/"}
	sys := randomSystem(1)
	for b.Loop() {
		args, _ := NewArgs([]string{"sh", "-c", "true"}, env, 8<<20)
		p, err := Prepare(&Request{Path: "/bin/p", File: &memFile{data: data}, Args: args, Cred: cred.Root(), StackLimit: 8 << 20}, sys)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Load(&space{layout: p.Layout}); err != nil {
			b.Fatal(err)
		}
	}
}
