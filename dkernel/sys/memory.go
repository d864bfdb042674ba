package sys

import (
	"dinos/dkernel/mm"
	"dinos/kernel/linux"
)

// Address spaces.

func memoryCalls() []Call {
	return []Call{
		{"mmap", sysMmap, Full, ""},
		{"munmap", func(t *Task, a *Args) (uint64, error) { return 0, t.Mem.Unmap(a[0], a[1]) }, Full, ""},
		{"mprotect", func(t *Task, a *Args) (uint64, error) { return 0, t.Mem.Protect(a[0], a[1], int(int32(a[2]))) }, Full, ""},
		{"pkey_mprotect", func(t *Task, a *Args) (uint64, error) {
			if int32(a[3]) != -1 {
				return 0, linux.EINVAL
			}
			return 0, t.Mem.Protect(a[0], a[1], int(int32(a[2])))
		}, Partial, "without keys, as on a CPU that has none"},
		{"mremap", func(t *Task, a *Args) (uint64, error) { return t.Mem.Remap(a[0], a[1], a[2], int(int32(a[3])), a[4]) }, Full, ""},
		{"brk", func(t *Task, a *Args) (uint64, error) { return t.Mem.Break(a[0]), nil }, Full, ""},
		{"madvise", func(t *Task, a *Args) (uint64, error) { return 0, t.Mem.Advise(a[0], a[1], int(int32(a[2]))) }, Full, ""},
		{"msync", func(t *Task, a *Args) (uint64, error) { return 0, t.Mem.Sync(a[0], a[1], int(int32(a[2]))) }, Full, ""},
		{"mincore", sysMincore, Full, ""},
		{"mlock", func(t *Task, a *Args) (uint64, error) { return 0, t.Mem.Lock(a[0], a[1], 0) }, Full, ""},
		{"mlock2", func(t *Task, a *Args) (uint64, error) { return 0, t.Mem.Lock(a[0], a[1], int(int32(a[2]))) }, Full, ""},
		{"munlock", func(t *Task, a *Args) (uint64, error) { return 0, t.Mem.Unlock(a[0], a[1]) }, Full, ""},
		{"mlockall", func(t *Task, a *Args) (uint64, error) { return 0, t.Mem.LockAll(int(int32(a[0]))) }, Full, ""},
		{"munlockall", func(t *Task, a *Args) (uint64, error) { t.Mem.UnlockAll(); return 0, nil }, Full, ""},
		{"memfd_create", sysMemfdCreate, Full, ""},
		{"pkey_alloc", func(t *Task, a *Args) (uint64, error) { return 0, linux.ENOSPC }, Refused, "as on a CPU without protection keys"},
		{"pkey_free", func(t *Task, a *Args) (uint64, error) { return 0, linux.EINVAL }, Refused, "as on a CPU without protection keys"},
	}
}

func sysMmap(t *Task, a *Args) (uint64, error) {
	if a[5]&4095 != 0 {
		return 0, linux.EINVAL
	}
	m := mm.MapArgs{Addr: a[0], Len: a[1], Prot: int(int32(a[2])), Flags: int(int32(a[3])), Offset: a[5]}
	if m.Flags&linux.MAP_ANONYMOUS != 0 {
		m.Offset = 0 // ignored
		return t.Mem.Map(m)
	}
	const typeMask = 0xf
	kind := m.Flags & typeMask
	o, err := t.C.Object(fd(a[4]), kind == linux.MAP_SHARED || kind == linux.MAP_SHARED_VALIDATE, m.Prot)
	if err != nil {
		return 0, err
	}
	if o == nil { // /dev/zero
		m.Flags |= linux.MAP_ANONYMOUS
		m.Offset = 0
		return t.Mem.Map(m)
	}
	m.Object = o
	addr, err := t.Mem.Map(m)
	o.Release()
	return addr, err
}

func sysMincore(t *Task, a *Args) (uint64, error) {
	const batch = 4096
	if a[0]&4095 != 0 {
		return 0, linux.EINVAL
	}
	pages := (a[1] + 4095) >> 12
	if a[1]+4095 < a[1] {
		return 0, linux.ENOMEM
	}
	for done := uint64(0); done < pages; {
		n := min(pages-done, batch)
		v := t.buf[:n]
		if err := t.Mem.Incore(a[0]+done<<12, n<<12, v); err != nil {
			return 0, err
		}
		if err := t.out(a[2]+done, v); err != nil {
			return 0, err
		}
		done += n
	}
	return 0, nil
}

func sysMemfdCreate(t *Task, a *Args) (uint64, error) {
	const maxName = 249
	b, err := t.bytesZ(a[0], t.buf[:maxName+1])
	if err == linux.ENAMETOOLONG {
		err = linux.EINVAL
	}
	if err != nil {
		return 0, err
	}
	return number(t.K.Exec.Memfd(t.C, string(b), uint32(a[1])))
}
