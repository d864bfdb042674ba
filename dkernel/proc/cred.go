package proc

import (
	"slices"

	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// setCred makes c the credentials of t. The process is accounted to the real user.
func (t *Thread) setCred(c *cred.Cred) {
	p := t.proc
	t.cred.Store(c)
	t.Caller.Cred = c
	p.mu.Lock()
	was := p.cred.Load()
	if was == nil {
		was = c
	}
	if p.leader == t || was == c {
		p.cred.Store(c)
	}
	old := p.user.Load()
	if old.uid != c.UID {
		n := t.sys.users.get(c.UID)
		n.threads.Add(int64(p.nthreads))
		old.threads.Add(-int64(p.nthreads))
		p.user.Store(n)
		t.sys.users.put(old)
		t.prctl.nprocExceeded = c.UID != 0 && uint64(n.threads.Load()) > p.limits[linux.RLIMIT_NPROC].Cur
	}
	if c.Can(cred.IPC_LOCK) != was.Can(cred.IPC_LOCK) {
		if m := p.space.Load(); m != nil {
			m.SetLimits(p.memory())
		}
	}
	p.mu.Unlock()
}

// noID is (uid_t)-1: leave it.
const noID = ^uint32(0)

// idChange is a change of the four user or group ids of a Cred.
type idChange struct{ r, e, s, fs *uint32 }

func uids(c *cred.Cred) idChange { return idChange{&c.UID, &c.EUID, &c.SUID, &c.FSUID} }
func gids(c *cred.Cred) idChange { return idChange{&c.GID, &c.EGID, &c.SGID, &c.FSGID} }

// change makes a copy of the credentials, has f change its ids, and gives it to the thread, with the capabilities that follow from the
// new user ids.
func (t *Thread) change(of func(*cred.Cred) idChange, c cred.Cap, f func(i idChange, able bool) error) error {
	old := t.Cred()
	n := *old
	if err := f(of(&n), old.Can(c)); err != nil {
		return err
	}
	if n.UID == noID || n.EUID == noID || n.GID == noID || n.EGID == noID {
		return linux.EINVAL
	}
	fixCaps(&n, old)
	t.changed(&n, old)
	return nil
}

// changed gives the thread new credentials. Who changes ids is no longer dumpable, nor bound to its parent.
func (t *Thread) changed(n, old *cred.Cred) {
	if n.EUID != old.EUID || n.EGID != old.EGID || n.FSUID != old.FSUID || n.FSGID != old.FSGID || n.Permitted&^old.Permitted != 0 {
		t.proc.mu.Lock()
		t.proc.prctl.dumpable = 0
		t.proc.mu.Unlock()
		t.deathSig.Store(0)
	}
	t.setCred(n)
}

// fixCaps takes or gives capabilities as user ids become or cease to be 0 (cap_emulate_setxuid; capabilities(7), "Effect of user ID changes on
// capabilities").
func fixCaps(n, old *cred.Cred) {
	if n.SecureBits&linux.SECBIT_NO_SETUID_FIXUP != 0 {
		return
	}
	const fs = cred.Caps(1<<cred.CHOWN | 1<<cred.DAC_OVERRIDE | 1<<cred.DAC_READ_SEARCH | 1<<cred.FOWNER | 1<<cred.FSETID |
		1<<cred.LINUX_IMMUTABLE | 1<<cred.MKNOD | 1<<32)
	was := old.UID == 0 || old.EUID == 0 || old.SUID == 0
	is := n.UID == 0 || n.EUID == 0 || n.SUID == 0
	if was && !is {
		if n.SecureBits&linux.SECBIT_KEEP_CAPS == 0 {
			n.Permitted, n.Effective = 0, 0
		}
		n.Ambient = 0
	}
	switch {
	case old.EUID == 0 && n.EUID != 0:
		n.Effective = 0
	case old.EUID != 0 && n.EUID == 0:
		n.Effective = n.Permitted
	}
	switch {
	case n.EUID != old.EUID:
	case old.FSUID == 0 && n.FSUID != 0:
		n.Effective &^= fs
	case old.FSUID != 0 && n.FSUID == 0:
		n.Effective |= n.Permitted & fs
	}
}

func setID(id uint32) func(idChange, bool) error {
	return func(i idChange, able bool) error {
		switch {
		case id == noID:
			return linux.EINVAL
		case able:
			*i.r, *i.s = id, id
		case id != *i.r && id != *i.s:
			return linux.EPERM
		}
		*i.e, *i.fs = id, id
		return nil
	}
}

func setREID(r, e uint32) func(idChange, bool) error {
	return func(i idChange, able bool) error {
		or, oe, os := *i.r, *i.e, *i.s
		if r != noID {
			if !able && r != or && r != oe {
				return linux.EPERM
			}
			*i.r = r
		}
		if e != noID {
			if !able && e != or && e != oe && e != os {
				return linux.EPERM
			}
			*i.e = e
		}
		if r != noID || e != noID && e != or {
			*i.s = *i.e
		}
		*i.fs = *i.e
		return nil
	}
}

func setRESID(r, e, s uint32) func(idChange, bool) error {
	return func(i idChange, able bool) error {
		have := []uint32{noID, *i.r, *i.e, *i.s}
		for _, x := range []uint32{r, e, s} {
			if !able && !slices.Contains(have, x) {
				return linux.EPERM
			}
		}
		for k, x := range []uint32{r, e, s} {
			if x != noID {
				*[]*uint32{i.r, i.e, i.s}[k] = x
			}
		}
		*i.fs = *i.e
		return nil
	}
}

// Setuid is setuid(2). linux.EINVAL, linux.EPERM; so are the following.
func (t *Thread) Setuid(id uint32) error { return t.change(uids, cred.SETUID, setID(id)) }

// Setgid is setgid(2).
func (t *Thread) Setgid(id uint32) error { return t.change(gids, cred.SETGID, setID(id)) }

// Setreuid is setreuid(2).
func (t *Thread) Setreuid(r, e uint32) error { return t.change(uids, cred.SETUID, setREID(r, e)) }

// Setregid is setregid(2).
func (t *Thread) Setregid(r, e uint32) error { return t.change(gids, cred.SETGID, setREID(r, e)) }

// Setresuid is setresuid(2).
func (t *Thread) Setresuid(r, e, s uint32) error {
	return t.change(uids, cred.SETUID, setRESID(r, e, s))
}

// Setresgid is setresgid(2).
func (t *Thread) Setresgid(r, e, s uint32) error {
	return t.change(gids, cred.SETGID, setRESID(r, e, s))
}

// Setfsuid is setfsuid(2): it returns the old id, whether it could be changed or not.
func (t *Thread) Setfsuid(id uint32) uint32 {
	old := t.Cred().FSUID
	_ = t.change(uids, cred.SETUID, setFSID(id))
	return old
}

// Setfsgid is setfsgid(2).
func (t *Thread) Setfsgid(id uint32) uint32 {
	old := t.Cred().FSGID
	_ = t.change(gids, cred.SETGID, setFSID(id))
	return old
}

func setFSID(id uint32) func(idChange, bool) error {
	return func(i idChange, able bool) error {
		if id == noID || !able && id != *i.r && id != *i.e && id != *i.s && id != *i.fs {
			return linux.EPERM
		}
		*i.fs = id
		return nil
	}
}

// MaxGroups is NGROUPS_MAX.
const MaxGroups = 65536

// Setgroups is setgroups(2); the slice is kept. linux.EPERM, linux.EINVAL.
func (t *Thread) Setgroups(gids []uint32) error {
	old := t.Cred()
	if !old.Can(cred.SETGID) {
		return linux.EPERM
	}
	if len(gids) > MaxGroups || slices.Contains(gids, noID) {
		return linux.EINVAL
	}
	n := *old
	slices.Sort(gids) // as Linux keeps them, and shows them
	n.Groups = gids
	t.setCred(&n)
	return nil
}

// Capget is capget(2): the capabilities of a thread, 0 being the caller. linux.ESRCH, linux.EINVAL.
func (t *Thread) Capget(id int32) (effective, permitted, inheritable cred.Caps, err error) {
	u := t
	if id < 0 {
		return 0, 0, 0, linux.EINVAL
	}
	if id != 0 {
		if u = t.sys.Thread(id); u == nil {
			return 0, 0, 0, linux.ESRCH
		}
	}
	c := u.Cred()
	return c.Effective, c.Permitted, c.Inheritable, nil
}

// Capset is capset(2); id must be the caller's or 0. What is no capability is left out. linux.EPERM.
func (t *Thread) Capset(id int32, effective, permitted, inheritable cred.Caps) error {
	if id != 0 && id != t.TID() {
		return linux.EPERM
	}
	effective, permitted, inheritable = effective&cred.AllCaps, permitted&cred.AllCaps, inheritable&cred.AllCaps
	old := t.Cred()
	n := *old
	switch {
	case !old.Can(cred.SETPCAP) && inheritable&^(old.Inheritable|old.Permitted) != 0,
		inheritable&^(old.Inheritable|old.Bounding) != 0,
		permitted&^old.Permitted != 0,
		effective&^permitted != 0:
		return linux.EPERM
	}
	n.Effective, n.Permitted, n.Inheritable = effective, permitted, inheritable
	n.Ambient &= permitted & inheritable
	t.setCred(&n)
	return nil
}
