package loader

import (
	"dinos/dkernel/cred"
	"dinos/kernel/linux"
)

// Bits of inode modes (inode(7)).
const (
	modeSetUID = 0o4000
	modeSetGID = 0o2000
	modeXGroup = 0o010
)

// Bits of cred.Cred.SecureBits (capabilities(7)).
const (
	secNoRoot   = 1 << 0
	secKeepCaps = 1 << 4
)

// clearOnSetID are the personality flags that would make a set-id program easier to attack (PER_CLEAR_ON_SETID).
const clearOnSetID = linux.READ_IMPLIES_EXEC | linux.ADDR_NO_RANDOMIZE | linux.ADDR_COMPAT_LAYOUT | linux.MMAP_PAGE_ZERO

// transition is what execve does to credentials.
type transition struct {
	cred        *cred.Cred
	secure      bool // AT_SECURE
	dumpable    bool
	personality uint32 // flags to clear
}

// newCred applies the set-id bits of a file and the rules of capabilities(7), "Transformation of capabilities during execve()";
// files have no capabilities of their own here (security/commoncap.c, cap_bprm_creds_from_file; fs/exec.c, bprm_fill_uid).
func newCred(old *cred.Cred, a Attr, unsafe bool) transition {
	var t transition
	c := *old
	if !a.NoSUID && !old.NoNewPrivs {
		if a.Mode&modeSetUID != 0 {
			c.EUID = a.UID
			t.personality = clearOnSetID
		}
		if a.Mode&(modeSetGID|modeXGroup) == modeSetGID|modeXGroup {
			c.EGID = a.GID
			t.personality = clearOnSetID
		}
	}
	root := c.SecureBits&secNoRoot == 0
	c.Permitted = 0
	if root && (c.EUID == 0 || c.UID == 0) {
		c.Permitted = old.Bounding | old.Inheritable
	}
	effective := root && c.EUID == 0

	gained := func(p cred.Caps) bool { return p&^old.Permitted != 0 }
	if gained(c.Permitted) {
		t.personality |= clearOnSetID
	}
	changed := c.EUID != old.EUID || !old.InGroup(c.EGID)
	if (changed || gained(c.Permitted)) && (unsafe || old.NoNewPrivs) {
		// They get no more than they had, and maybe less.
		if !old.Can(cred.SETUID) || old.NoNewPrivs {
			c.EUID, c.EGID = c.UID, c.GID
		}
		c.Permitted &= old.Permitted
	}
	c.SUID, c.FSUID = c.EUID, c.EUID
	c.SGID, c.FSGID = c.EGID, c.EGID
	if changed {
		c.Ambient = 0
	}
	c.Permitted |= c.Ambient
	c.Effective = c.Ambient
	if effective {
		c.Effective = c.Permitted
	}
	c.SecureBits &^= secKeepCaps
	t.secure = changed || c.EUID != old.UID || c.EGID != old.GID ||
		c.UID != 0 && (effective || c.Permitted&^c.Ambient != 0)
	// prctl(2), PR_SET_DUMPABLE: not if the file cannot be read, nor with other or more rights than the process had.
	t.dumpable = old.Access(a.UID, a.GID, a.Mode, false, 4) && c.EUID == c.UID && c.EGID == c.GID &&
		c.EUID == old.EUID && c.EGID == old.EGID && c.FSUID == old.FSUID && c.FSGID == old.FSGID && !gained(c.Permitted)
	t.cred = &c
	return t
}
