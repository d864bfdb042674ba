package loader

import "dinos/kernel/linux"

const (
	// mmapRandomBits is how many pages mappings start below their usual place at random: 2²⁸ (vm.mmap_rnd_bits).
	mmapRandomBits = 28
	// stackRandomPages is the same for the stack, less one (arch/x86, __STACK_RND_MASK).
	stackRandomPages = 0x3fffff
	// brkRandom is how far the start of brk may be behind its usual place (arch_randomize_brk of 64-bit programs).
	brkRandom = 1 << 30
	// minGap and maxGap limit the room for the stack.
	minGap = 128 << 20
	maxGap = taskSize / 6 * 5
	// stackGuard is kept free below the stack (mm/mmap.c, stack_guard_gap).
	stackGuard = 256 * pageSize
	// dynBase is where Linux puts programs that can run anywhere, if they have an interpreter; of a static PIE it is where brk starts,
	// which the area for mappings would leave little room for (ELF_ET_DYN_BASE; fs/binfmt_elf.c, "brk handling").
	dynBase = taskSize / 3 * 2
)

// rnd returns random bits, none if the layout is not to be random.
func (p *Program) rnd() uint64 {
	if !p.random {
		return 0
	}
	return p.sys.Random()
}

func pageUp(v uint64) uint64   { return (v + pageSize - 1) &^ (pageSize - 1) }
func pageDown(v uint64) uint64 { return v &^ (pageSize - 1) }

// alignStack is the stack pointer moved down a little at random, aligned (arch_align_stack): programs on sibling threads of a
// core shall not share cache sets.
func (p *Program) alignStack(sp uint64) uint64 { return (sp - p.rnd()%8192) &^ 15 }

// layOut decides where stack and mappings go (arch/x86/mm/mmap.c, arch_pick_mmap_layout; fs/binfmt_elf.c, randomize_stack_top).
func (p *Program) layOut() {
	top := taskSize - p.rnd()&stackRandomPages*pageSize
	p.Layout.StackTop = pageUp(p.alignStack(top))

	rnd := p.rnd() & (1<<mmapRandomBits - 1) * pageSize
	if p.Personality&linux.ADDR_COMPAT_LAYOUT != 0 {
		p.Layout.Legacy = true
		p.Layout.MmapBase = pageUp(taskSize/3) + rnd
		return
	}
	gap, pad := p.StackLimit, uint64(stackGuard)
	if p.random {
		pad += stackRandomPages * pageSize
	}
	if gap+pad > gap { // not if the limit is infinite
		gap += pad
	}
	p.Layout.MmapBase = pageUp(taskSize - min(max(gap, minGap), maxGap) - rnd)
}

// brkStart is where brk(2) starts, given the end of the segments.
func (p *Program) brkStart(end uint64) uint64 {
	start := pageUp(end)
	if p.elf.dyn {
		start = pageUp(dynBase)
	} else if p.random {
		start += pageSize
	}
	return start + p.rnd()%(brkRandom/pageSize)*pageSize
}
