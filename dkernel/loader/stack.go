package loader

import (
	"bytes"
	"encoding/binary"

	"dinos/dkernel/mm"
	"dinos/kernel/linux"
)

const (
	platform  = "x86_64" // AT_PLATFORM
	clockTick = 100      // AT_CLKTCK, what times(2) counts in
	// rseqSize and rseqAlign are the offset of the end of struct rseq's fields and its alignment (linux/rseq.h).
	rseqSize  = 28
	rseqAlign = 32
	// maxAuxv is the most entries that the auxiliary vector has here, with its end.
	maxAuxv = 24
	// stackRoom is how much stack a program has below its arguments before the stack must grow.
	stackRoom = 128 << 10
)

// stackPlan is where everything on the initial stack goes. From the top down:
//
//	8 zero bytes
//	the path (AT_EXECFN), the environment's strings, the arguments' strings
//	a gap of random size
//	"x86_64", 16 random bytes
//	a gap of less than 16 bytes
//	auxiliary vector, pointers to the environment, pointers to the arguments, their number
type stackPlan struct {
	top      uint64
	strings  uint64 // address of the first argument
	envStart uint64
	envEnd   uint64 // here is the path
	platform uint64
	random   uint64
	auxv     int // entries, with the end
	sp       uint64
}

// planStack computes addresses only; the vDSO's entry is counted without knowing its address.
func (p *Program) planStack() *stackPlan {
	s := &stackPlan{top: p.Layout.StackTop, auxv: 22}
	if p.sys.VDSO != nil {
		s.auxv++
	}
	a := p.args
	s.envEnd = s.top - 8 - uint64(len(p.Path)+1)
	s.envStart = s.envEnd - uint64(len(a.data)-a.argLen)
	s.strings = s.envStart - uint64(a.argLen-p.skip+len(p.prefix))
	s.platform = p.alignStack(s.strings) - uint64(len(platform)+1)
	s.random = s.platform - 16
	s.sp = (s.random - uint64(8*(1+p.argc()+1+a.envc+1+2*s.auxv))) &^ 15
	return s
}

// mapStack maps the stack as large as it is to start with (fs/exec.c, setup_arg_pages).
func (p *Program) mapStack(space Space, s *stackPlan) error {
	limit := pageDown(p.StackLimit)
	low := pageDown(s.strings)
	if bottom := pageDown(s.sp); bottom < low {
		if s.top-bottom > limit {
			return &Error{linux.E2BIG, p.Path, "the stack limit is too small for its arguments"}
		}
		low = min(low, bottom)
	}
	low = min(low, s.top-min(limit, s.top-pageDown(s.strings)+stackRoom))
	prot := linux.PROT_READ | linux.PROT_WRITE
	if p.elf.stack == stackExecutable {
		prot |= linux.PROT_EXEC
	}
	flags := linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_FIXED | linux.MAP_GROWSDOWN | linux.MAP_STACK
	if _, err := space.Map(mm.MapArgs{Addr: low, Len: s.top - low, Prot: prot, Flags: flags}); err != nil {
		return failed(err, p.Path, "mapping the stack")
	}
	space.SetStack(s.sp)
	return nil
}

// auxv is the auxiliary vector, in Linux' order (fs/binfmt_elf.c, create_elf_tables).
func (p *Program) auxv(s *stackPlan, img *Image, phdr uint64) []byte {
	b := make([]byte, 0, 16*maxAuxv)
	add := func(tag int, v uint64) {
		b = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, uint64(tag)), v)
	}
	if p.sys.VDSO != nil {
		add(linux.AT_SYSINFO_EHDR, img.VDSO)
	}
	secure := uint64(0)
	if p.Secure {
		secure = 1
	}
	add(linux.AT_MINSIGSTKSZ, p.sys.MinSigStack)
	add(linux.AT_HWCAP, p.sys.HWCap)
	add(linux.AT_PAGESZ, pageSize)
	add(linux.AT_CLKTCK, clockTick)
	add(linux.AT_PHDR, phdr)
	add(linux.AT_PHENT, linux.ElfPhdrSize)
	add(linux.AT_PHNUM, uint64(p.elf.phnum))
	add(linux.AT_BASE, 0)
	add(linux.AT_FLAGS, 0)
	add(linux.AT_ENTRY, img.Entry)
	add(linux.AT_UID, uint64(p.Cred.UID))
	add(linux.AT_EUID, uint64(p.Cred.EUID))
	add(linux.AT_GID, uint64(p.Cred.GID))
	add(linux.AT_EGID, uint64(p.Cred.EGID))
	add(linux.AT_SECURE, secure)
	add(linux.AT_RANDOM, s.random)
	add(linux.AT_HWCAP2, p.sys.HWCap2)
	add(linux.AT_EXECFN, s.envEnd)
	add(linux.AT_PLATFORM, s.platform)
	add(linux.AT_RSEQ_FEATURE_SIZE, rseqSize)
	add(linux.AT_RSEQ_ALIGN, rseqAlign)
	add(linux.AT_NULL, 0)
	return b
}

// writeStack fills the stack: the strings in one piece, the rest in another.
func (p *Program) writeStack(space Space, s *stackPlan, img *Image, phdr uint64) error {
	a := p.args
	strings := make([]byte, 0, s.top-s.strings)
	strings = append(append(strings, p.prefix...), a.data[p.skip:]...)
	strings = append(append(strings, p.Path...), make([]byte, 9)...)

	le := binary.LittleEndian
	img.Auxv = p.auxv(s, img, phdr)
	low := make([]byte, 0, s.platform+uint64(len(platform)+1)-s.sp)
	low = le.AppendUint64(low, uint64(p.argc()))
	at := strings
	addr := s.strings
	pointers := func(n int) {
		for range n {
			low = le.AppendUint64(low, addr)
			i := bytes.IndexByte(at, 0) + 1
			at = at[i:]
			addr += uint64(i)
		}
		low = le.AppendUint64(low, 0)
	}
	pointers(p.argc())
	pointers(a.envc)
	low = append(low, img.Auxv...)
	low = low[:s.random-s.sp] // up to 15 zero bytes
	// The 16 bytes are random even where the layout is not.
	low = le.AppendUint64(le.AppendUint64(low, p.sys.Random()), p.sys.Random())
	low = append(append(low, platform...), 0)

	for _, part := range [...]struct {
		addr uint64
		data []byte
	}{{s.strings, strings}, {s.sp, low}} {
		if _, err := space.CopyOut(part.addr, part.data); err != nil {
			return failed(err, p.Path, "writing its arguments")
		}
	}
	img.SP, img.StackStart = s.sp, s.sp
	img.ArgStart, img.ArgEnd = s.strings, s.envStart
	img.EnvStart, img.EnvEnd = s.envStart, s.envEnd
	return nil
}
