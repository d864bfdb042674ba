package sys

import (
	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// priorityLimit makes sched_get_priority_max and min: limit is that of the policies that have priorities.
func priorityLimit(limit uint64) func(*Task, *Args) (uint64, error) {
	return func(t *Task, a *Args) (uint64, error) {
		switch int32(a[0]) {
		case linux.SCHED_FIFO, linux.SCHED_RR:
			return limit, nil
		case linux.SCHED_OTHER, linux.SCHED_BATCH, linux.SCHED_IDLE, linux.SCHED_DEADLINE:
			return 0, nil
		}
		return 0, linux.EINVAL
	}
}

// capHeader is struct __user_cap_header_struct, capData is two of struct __user_cap_data_struct.
type capHeader struct {
	Version uint32
	PID     int32
}

type capData [2]struct{ Effective, Permitted, Inheritable uint32 }

// Versions of the interface; the first has one capData only, the second was an error and is taken for the third.
const (
	capVersion1 = 0x19980330
	capVersion2 = 0x20071026
	capVersion3 = 0x20080522
)

// capVersion reads the header, and says how many words of data there are. An unknown version is answered with the one to use.
func (t *Task) capVersion(addr uint64) (h capHeader, words int, err error) {
	if h, err = load[capHeader](t, addr); err != nil {
		return h, 0, err
	}
	switch h.Version {
	case capVersion1:
		words = 1
	case capVersion2, capVersion3:
		words = 2
	default:
		v := uint32(capVersion3)
		if err := store(t, addr, &v); err != nil {
			return h, 0, err
		}
		return h, 0, linux.EINVAL
	}
	if h.PID < 0 {
		err = linux.EINVAL
	}
	return h, words, err
}

func sysCapget(t *Task, a *Args) (uint64, error) {
	h, words, err := t.capVersion(a[0])
	if err != nil {
		if a[1] == 0 && words == 0 && err == linux.EINVAL {
			return 0, nil // a question for the version
		}
		return 0, err
	}
	e, p, i, err := t.T.Capget(h.PID)
	if err != nil || a[1] == 0 {
		return 0, err
	}
	var d capData
	for w := range d {
		s := 32 * w
		d[w].Effective, d[w].Permitted, d[w].Inheritable = uint32(e>>s), uint32(p>>s), uint32(i>>s)
	}
	return 0, storeSlice(t, a[1], d[:words])
}

func sysCapset(t *Task, a *Args) (uint64, error) {
	h, words, err := t.capVersion(a[0])
	if err != nil {
		return 0, err
	}
	var d capData
	if err := loadSlice(t, a[1], d[:words]); err != nil {
		return 0, err
	}
	join := func(lo, hi uint32) cred.Caps { return (cred.Caps(lo) | cred.Caps(hi)<<32) & cred.AllCaps }
	return 0, t.T.Capset(h.PID, join(d[0].Effective, d[1].Effective), join(d[0].Permitted, d[1].Permitted), join(d[0].Inheritable, d[1].Inheritable))
}

// schedAttrSize is the first version's size of struct sched_attr.
const schedAttrSize = 48

func sysSchedSetattr(t *Task, a *Args) (uint64, error) {
	if a[1] == 0 || int32(a[0]) < 0 || a[2] != 0 {
		return 0, linux.EINVAL
	}
	size, err := load[uint32](t, a[1])
	if err != nil {
		return 0, err
	}
	if size == 0 {
		size = schedAttrSize
	}
	if size < schedAttrSize {
		return 0, linux.E2BIG
	}
	v, err := extensible[linux.SchedAttr](t, a[1], uint64(size))
	if err != nil {
		return 0, err
	}
	return 0, t.T.SchedSetattr(int32(a[0]), &v)
}

func sysSchedGetattr(t *Task, a *Args) (uint64, error) {
	if a[1] == 0 || int32(a[0]) < 0 || a[3] != 0 || uint32(a[2]) < schedAttrSize || uint32(a[2]) > 4096 {
		return 0, linux.EINVAL
	}
	v, err := t.T.SchedGetattr(int32(a[0]))
	if err != nil {
		return 0, err
	}
	b := asBytes(&v)
	v.Size = min(uint32(a[2]), uint32(len(b)))
	return 0, t.out(a[1], b[:v.Size])
}
