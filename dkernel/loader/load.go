package loader

import (
	"dinos/dkernel/mm"
	"dinos/kernel/linux"
)

// Load fills a fresh address space with the program. It may be called once. After an error the space is to be thrown away,
// and the Program to be closed. Errors are those of the space (linux.ENOMEM, EEXIST, EPERM for page 0), linux.EFAULT for a
// segment whose last page cannot be read, E2BIG if the stack limit is too small for the arguments.
func (p *Program) Load(space Space) (*Image, error) {
	img := &Image{}
	s := p.planStack()
	if err := p.mapStack(space, s); err != nil {
		return nil, err
	}
	bias, err := p.mapSegments(space)
	if err != nil {
		return nil, err
	}
	x := p.elf
	img.Entry = x.entry + bias
	if img.Entry >= taskSize {
		return nil, fail(linux.EINVAL, p.Path, "it starts at %#x, which is no address of a program", img.Entry)
	}
	img.CodeStart, img.CodeEnd = x.codeLow+bias, x.codeEnd+bias
	img.DataStart, img.DataEnd = x.dataLow+bias, x.dataEnd+bias
	if img.VDSO, err = p.mapVDSO(space); err != nil {
		return nil, err
	}
	if err := p.writeStack(space, s, img, x.phdr+bias); err != nil {
		return nil, err
	}
	img.BrkStart = p.brkStart(x.brk + bias)
	space.SetBreakStart(img.BrkStart)
	if p.Personality&linux.MMAP_PAGE_ZERO != 0 {
		// As on Linux, a program that may not have page 0 runs without.
		_, _ = mapZeros(space, 0, pageSize, linux.PROT_READ|linux.PROT_EXEC, linux.MAP_FIXED)
	}
	return img, nil
}

// mapZeros maps private zeroed memory.
func mapZeros(space Space, addr, n uint64, prot, flags int) (uint64, error) {
	return space.Map(mm.MapArgs{Addr: addr, Len: n, Prot: prot, Flags: linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | flags})
}

// mapObject maps an object privately.
func mapObject(space Space, obj mm.Object, addr, n uint64, prot, flags int, off uint64) (uint64, error) {
	return space.Map(mm.MapArgs{Addr: addr, Len: n, Prot: prot, Flags: linux.MAP_PRIVATE | flags, Object: obj, Offset: off})
}

// mapSegments maps the segments and returns how far they are from where the file has them.
func (p *Program) mapSegments(space Space) (bias uint64, err error) {
	x := p.elf
	if x.dyn && len(x.loads) > 0 {
		base, err := p.place(space)
		if err != nil {
			return 0, err
		}
		bias = base - pageDown(x.loads[0].vaddr)
	}
	for i := range x.loads {
		// The first one must not hit the stack, and the others not anything but the program itself, which may overlap.
		fixed := linux.MAP_FIXED
		if i == 0 {
			fixed = linux.MAP_FIXED_NOREPLACE
		}
		if err := p.mapSegment(space, &x.loads[i], bias, fixed); err != nil {
			return 0, err
		}
	}
	return bias, nil
}

// place finds room for all segments of a program that can run anywhere. A static PIE goes where mappings go, so that it stays
// away from what it may load itself (fs/binfmt_elf.c, "PIE handling").
func (p *Program) place(space Space) (uint64, error) {
	size := pageUp(p.elf.size)
	base, err := mapZeros(space, 0, size, linux.PROT_NONE, linux.MAP_NORESERVE)
	if err == nil {
		err = space.Unmap(base, size)
	}
	if err != nil {
		return 0, failed(err, p.Path, "no room for its segments")
	}
	return base &^ (p.elf.align - 1), nil
}

// mapSegment maps one segment: what the file has, zeros to the end of that page, then pages of zeros (fs/binfmt_elf.c,
// elf_load). The last are writable whatever the segment is.
func (p *Program) mapSegment(space Space, s *segment, bias uint64, fixed int) error {
	addr := s.vaddr + bias
	start, fileEnd, end := pageDown(addr), addr+s.filesz, addr+s.memsz
	zeros := start // where pages of zeros start
	if s.filesz != 0 {
		zeros = pageUp(fileEnd)
		_, err := mapObject(space, p.File.Object(), start, zeros-start, s.prot, fixed, s.off-(addr-start))
		if err != nil {
			return failed(err, p.Path, "mapping a segment")
		}
		if s.memsz > s.filesz && fileEnd < zeros {
			// A page that the program may not write cannot be cleared, and keeps what the file has behind the segment.
			if _, err := space.Zero(fileEnd, zeros-fileEnd); err != nil && s.prot&linux.PROT_WRITE != 0 {
				return failed(err, p.Path, "clearing the end of a segment")
			}
		}
		fixed = linux.MAP_FIXED
	}
	if s.memsz == s.filesz || pageUp(end) <= zeros {
		return nil
	}
	prot := linux.PROT_READ | linux.PROT_WRITE | s.prot&linux.PROT_EXEC
	if _, err := mapZeros(space, zeros, pageUp(end)-zeros, prot, fixed); err != nil {
		return failed(err, p.Path, "mapping zeroed memory")
	}
	return nil
}

// mapVDSO puts the data page and the image of the vDSO side by side where there is room.
func (p *Program) mapVDSO(space Space) (uint64, error) {
	if p.sys.VDSO == nil {
		return 0, nil
	}
	size := pageSize + p.sys.VDSOSize
	base, err := mapZeros(space, 0, size, linux.PROT_NONE, linux.MAP_NORESERVE)
	if err == nil {
		_, err = mapObject(space, p.sys.VVar, base, pageSize, linux.PROT_READ, linux.MAP_FIXED, 0)
	}
	if err == nil {
		_, err = mapObject(space, p.sys.VDSO, base+pageSize, p.sys.VDSOSize, linux.PROT_READ|linux.PROT_EXEC, linux.MAP_FIXED, 0)
	}
	if err != nil {
		return 0, failed(err, p.Path, "mapping the vDSO")
	}
	return base + pageSize, nil
}
