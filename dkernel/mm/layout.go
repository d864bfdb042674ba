package mm

// Layout is where an address space puts things.
type Layout struct {
	StackTop uint64 // end of the stack; the loader puts the stack below
	MmapBase uint64 // mappings go below it, from the top down; or above it, if Legacy
	DynBase  uint64 // where to load position-independent executables (ELF_ET_DYN_BASE, randomised)
	Legacy   bool   // from the bottom up, as with ADDR_COMPAT_LAYOUT
}

// Bits of randomness, in pages (arch/x86/mm/mmap.c, mmap_rnd_bits; fs/binfmt_elf.c, STACK_RND_MASK; arch_randomize_brk).
const (
	mmapRandom  = 1<<28 - 1
	stackRandom = 1<<22 - 1
	brkRandom   = 0x02000000 // bytes
)

// NewLayout chooses a layout as Linux does. stack is RLIMIT_STACK in bytes. fixed leaves out all randomness (ADDR_NO_RANDOMIZE).
func (y *System) NewLayout(stack uint64, fixed, legacy bool) Layout {
	rnd := func(mask uint64) uint64 {
		if fixed {
			return 0
		}
		return y.random() & mask << pageShift
	}
	const task, gapMin = uint64(userTop), 128 << 20
	gap := min(stack, task) + stackGuard + stackRandom<<pageShift
	gap = pageUp(min(max(gap, gapMin), task/6*5))
	l := Layout{
		StackTop: task - rnd(stackRandom),
		MmapBase: (task - gap - rnd(mmapRandom)) &^ (pageSize - 1),
		DynBase:  pageUp(task/3*2) + rnd(mmapRandom),
		Legacy:   legacy,
	}
	if legacy {
		l.MmapBase = unmappedBase + rnd(mmapRandom)
	}
	return l
}

// BrkStart chooses where the break begins for a program that ends at end (ADDR_NO_RANDOMIZE: fixed).
func (y *System) BrkStart(end uint64, fixed bool) uint64 {
	end = pageUp(end)
	if fixed {
		return end
	}
	return pageUp(end + y.random()%brkRandom)
}
