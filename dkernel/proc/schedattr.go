package proc

import "dinos/kernel/linux"

// SchedSetattr is sched_setattr(2). linux.EINVAL, linux.EPERM, linux.ESRCH.
func (t *Thread) SchedSetattr(id int32, a *linux.SchedAttr) error {
	const known = linux.SCHED_FLAG_RESET_ON_FORK | linux.SCHED_FLAG_RECLAIM | linux.SCHED_FLAG_DL_OVERRUN | linux.SCHED_FLAG_KEEP_POLICY |
		linux.SCHED_FLAG_KEEP_PARAMS | linux.SCHED_FLAG_UTIL_CLAMP_MIN | linux.SCHED_FLAG_UTIL_CLAMP_MAX
	if a.Flags&^known != 0 || int32(a.Policy) < 0 {
		return linux.EINVAL
	}
	u, err := t.thread(id)
	if err != nil {
		return err
	}
	n := u.scheduling()
	n.reset = a.Flags&linux.SCHED_FLAG_RESET_ON_FORK != 0
	if a.Flags&linux.SCHED_FLAG_KEEP_POLICY == 0 {
		n.policy = int(int32(a.Policy))
	}
	if a.Flags&linux.SCHED_FLAG_KEEP_PARAMS == 0 {
		n.rtprio = int(a.Priority)
		if n.policy == linux.SCHED_OTHER || n.policy == linux.SCHED_BATCH {
			n.nice = max(-20, min(19, int(a.Nice)))
		}
	}
	if a.Flags&linux.SCHED_FLAG_UTIL_CLAMP_MIN != 0 {
		n.utilMin = a.UtilMin
	}
	if a.Flags&linux.SCHED_FLAG_UTIL_CLAMP_MAX != 0 {
		n.utilMax = a.UtilMax
	}
	if n.utilMin > n.utilMax || n.utilMax > 1024 {
		return linux.EINVAL
	}
	return t.setSched(u, n)
}

// SchedGetattr is sched_getattr(2) with flags 0; Size is the caller's to set. linux.EINVAL, linux.ESRCH.
func (t *Thread) SchedGetattr(id int32) (a linux.SchedAttr, err error) {
	u, err := t.thread(id)
	if err != nil {
		return a, err
	}
	s := u.scheduling()
	a = linux.SchedAttr{Size: linux.SCHED_ATTR_SIZE_VER1, Policy: uint32(s.policy), Nice: int32(s.nice), Priority: uint32(s.rtprio),
		UtilMin: s.utilMin, UtilMax: s.utilMax}
	if s.reset {
		a.Flags = linux.SCHED_FLAG_RESET_ON_FORK
	}
	return a, nil
}
