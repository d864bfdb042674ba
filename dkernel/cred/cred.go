// Package cred is who a process acts as: user and group ids and capabilities (credentials(7), capabilities(7)).
package cred

// Cred is a set of credentials. It is never changed once a process has it: who changes credentials makes a copy, so that readers
// need no lock.
type Cred struct {
	UID, EUID, SUID, FSUID uint32
	GID, EGID, SGID, FSGID uint32
	Groups                 []uint32 // supplementary
	Effective, Permitted   Caps
	Inheritable, Bounding  Caps
	Ambient                Caps
	NoNewPrivs             bool
	SecureBits             uint32
}

// Caps is a set of capabilities, bit c for capability c.
type Caps uint64

// Cap is a capability (include/uapi/linux/capability.h).
type Cap uint8

// The capabilities.
const (
	CHOWN           Cap = 0
	DAC_OVERRIDE    Cap = 1
	DAC_READ_SEARCH Cap = 2
	FOWNER          Cap = 3
	FSETID          Cap = 4
	KILL            Cap = 5
	SETGID          Cap = 6
	SETUID          Cap = 7
	SETPCAP         Cap = 8
	LINUX_IMMUTABLE Cap = 9
	NET_BIND        Cap = 10
	NET_BROADCAST   Cap = 11
	NET_ADMIN       Cap = 12
	NET_RAW         Cap = 13
	IPC_LOCK        Cap = 14
	IPC_OWNER       Cap = 15
	SYS_MODULE      Cap = 16
	SYS_RAWIO       Cap = 17
	SYS_CHROOT      Cap = 18
	SYS_PTRACE      Cap = 19
	SYS_PACCT       Cap = 20
	SYS_ADMIN       Cap = 21
	SYS_BOOT        Cap = 22
	SYS_NICE        Cap = 23
	SYS_RESOURCE    Cap = 24
	SYS_TIME        Cap = 25
	SYS_TTY_CONFIG  Cap = 26
	MKNOD           Cap = 27
	LEASE           Cap = 28
	AUDIT_WRITE     Cap = 29
	AUDIT_CONTROL   Cap = 30
	SETFCAP         Cap = 31
	LastCap         Cap = 40
)

// AllCaps are all capabilities.
const AllCaps = Caps(1<<(LastCap+1) - 1)

// Root are the credentials of the first process.
func Root() *Cred {
	return &Cred{Effective: AllCaps, Permitted: AllCaps, Bounding: AllCaps}
}

// Has reports whether c is in the set.
func (s Caps) Has(c Cap) bool { return s>>c&1 != 0 }

// Can reports whether the capability is effective.
func (c *Cred) Can(x Cap) bool { return c.Effective.Has(x) }

// InGroup reports whether files of group gid are of the holder's group: the file system group or a supplementary one.
func (c *Cred) InGroup(gid uint32) bool {
	if c.FSGID == gid {
		return true
	}
	for _, g := range c.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// Access reports whether the holder may use a file of that owner, group and mode in the ways of want: 4 read, 2 write, 1 execute
// or search (path_resolution(7), "Permissions"; capabilities(7) for CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH).
func (c *Cred) Access(uid, gid, mode uint32, dir bool, want uint32) bool {
	bits := mode
	switch {
	case c.FSUID == uid:
		bits >>= 6
	case c.InGroup(gid):
		bits >>= 3
	}
	if bits&want == want {
		return true
	}
	if c.Can(DAC_OVERRIDE) && (dir || want&1 == 0 || mode&0o111 != 0) {
		return true
	}
	return c.Can(DAC_READ_SEARCH) && (want == 4 || dir && want&2 == 0)
}
