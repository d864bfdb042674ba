package loader

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/cred"
	"dinos/dkernel/loader/elftest"
	"dinos/kernel/linux"
)

// TestCreds: the cases of execve(2), "Effect on process attributes", and capabilities(7), "Capabilities and execution of programs
// by root".
func TestCreds(t *testing.T) {
	const some = cred.Caps(1<<cred.CHOWN | 1<<cred.KILL)
	user := func(f func(*cred.Cred)) *cred.Cred {
		c := &cred.Cred{UID: 1000, EUID: 1000, SUID: 1000, FSUID: 1000, GID: 100, EGID: 100, SGID: 100, FSGID: 100, Groups: []uint32{7}, Bounding: cred.AllCaps}
		if f != nil {
			f(c)
		}
		return c
	}
	root := func(f func(*cred.Cred)) *cred.Cred {
		c := cred.Root()
		if f != nil {
			f(c)
		}
		return c
	}
	for _, c := range []struct {
		name   string
		old    *cred.Cred
		attr   Attr
		unsafe bool
		want   *cred.Cred
		secure bool
		dump   bool
		clear  bool
	}{
		{"user, ordinary file", user(nil), Attr{Mode: 0o755}, false, user(nil), false, true, false},
		{"user, file that cannot be read", user(nil), Attr{Mode: 0o711}, false, user(nil), false, false, false},
		{"root, ordinary file", root(nil), Attr{Mode: 0o755}, false, root(nil), false, true, false},
		{"user, setuid root", user(nil), Attr{Mode: 0o4755}, false, user(func(c *cred.Cred) {
			c.EUID, c.SUID, c.FSUID, c.Permitted, c.Effective = 0, 0, 0, cred.AllCaps, cred.AllCaps
		}), true, false, true},
		{"user, setuid another", user(nil), Attr{Mode: 0o4755, UID: 5}, false, user(func(c *cred.Cred) { c.EUID, c.SUID, c.FSUID = 5, 5, 5 }), true, false, true},
		{"user, setgid", user(nil), Attr{Mode: 0o2755, GID: 9}, false, user(func(c *cred.Cred) { c.EGID, c.SGID, c.FSGID = 9, 9, 9 }), true, false, true},
		{"user, setgid to a group of the user's", user(nil), Attr{Mode: 0o2755, GID: 7}, false, user(func(c *cred.Cred) { c.EGID, c.SGID, c.FSGID = 7, 7, 7 }), true, false, true},
		{"setgid without group execute is mandatory locking", user(nil), Attr{Mode: 0o2745, GID: 9}, false, user(nil), false, true, false},
		{"nosuid mount", user(nil), Attr{Mode: 0o6755, NoSUID: true}, false, user(nil), false, true, false},
		{"no_new_privs", user(func(c *cred.Cred) { c.NoNewPrivs = true }), Attr{Mode: 0o6755}, false, user(func(c *cred.Cred) { c.NoNewPrivs = true }), false, true, false},
		{"watched", user(nil), Attr{Mode: 0o4755}, true, user(nil), true, true, true},
		{"watched, may set ids", user(func(c *cred.Cred) { c.Effective, c.Permitted = 1<<cred.SETUID, 1<<cred.SETUID }), Attr{Mode: 0o4755}, true,
			user(func(c *cred.Cred) {
				c.EUID, c.SUID, c.FSUID, c.Permitted, c.Effective = 0, 0, 0, 1<<cred.SETUID, 1<<cred.SETUID
			}), true, false, true},
		{"capabilities are lost", user(func(c *cred.Cred) { c.Permitted, c.Effective, c.Inheritable = some, some, some }), Attr{Mode: 0o755}, false,
			user(func(c *cred.Cred) { c.Inheritable = some }), false, true, false},
		{"ambient ones are not", user(func(c *cred.Cred) { c.Permitted, c.Inheritable, c.Ambient = some, some, some }), Attr{Mode: 0o755}, false,
			user(func(c *cred.Cred) { c.Permitted, c.Effective, c.Inheritable, c.Ambient = some, some, some, some }), false, true, false},
		{"ambient ones are, by set-id", user(func(c *cred.Cred) { c.Permitted, c.Inheritable, c.Ambient = some, some, some }), Attr{Mode: 0o4755, UID: 5}, false,
			user(func(c *cred.Cred) { c.EUID, c.SUID, c.FSUID, c.Inheritable = 5, 5, 5, some }), true, false, true},
		{"root with a bounding set", root(func(c *cred.Cred) { c.Bounding, c.Permitted, c.Effective = some, 0, 0 }), Attr{Mode: 0o755}, false,
			root(func(c *cred.Cred) { c.Bounding, c.Permitted, c.Effective = some, some, some }), false, false, true},
		{"SECBIT_NOROOT", root(func(c *cred.Cred) { c.SecureBits = secNoRoot | secKeepCaps }), Attr{Mode: 0o755}, false,
			root(func(c *cred.Cred) { c.SecureBits, c.Permitted, c.Effective = secNoRoot, 0, 0 }), false, true, false},
		{"real uid 0 only", root(func(c *cred.Cred) { c.EUID, c.FSUID, c.Effective = 1000, 1000, 0 }), Attr{Mode: 0o755}, false,
			root(func(c *cred.Cred) { c.EUID, c.SUID, c.FSUID, c.Effective = 1000, 1000, 1000, 0 }), true, false, false},
		{"a set-id program runs a program", user(func(c *cred.Cred) { c.EUID, c.SUID, c.FSUID = 5, 5, 5 }), Attr{Mode: 0o755}, false,
			user(func(c *cred.Cred) { c.EUID, c.SUID, c.FSUID = 5, 5, 5 }), true, false, false},
	} {
		old := *c.old
		got := newCred(c.old, c.attr, c.unsafe)
		require.Equal(t, c.want, got.cred, c.name)
		require.Equal(t, c.secure, got.secure, "%s: secure", c.name)
		require.Equal(t, c.dump, got.dumpable, "%s: dumpable", c.name)
		require.Equal(t, c.clear, got.personality != 0, "%s: personality", c.name)
		require.Equal(t, old, *c.old, "%s: the old ones changed", c.name)
	}
}

// TestCredsAgainstLinux runs set-id programs as somebody and compares what the auxiliary vector says.
func TestCredsAgainstLinux(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make set-id files of others")
	}
	data, err := elftest.DumpStart(linux.ET_EXEC)
	require.NoError(t, err)
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	path := filepath.Join(dir, "program")
	for _, uid := range []uint32{0, 1000} {
		for _, owner := range []int{0, 1000, 1001} {
			for _, mode := range []uint32{0o755, 0o4755, 0o2755, 0o6755, 0o2745} {
				_ = os.Remove(path)
				require.NoError(t, os.WriteFile(path, data, 0o755))
				require.NoError(t, syscall.Chown(path, owner, owner))
				require.NoError(t, syscall.Chmod(path, mode))
				cmd := exec.Command(path)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid + 5, Groups: []uint32{1001}}}
				out, err := cmd.Output()
				if errors.Is(err, syscall.EPERM) {
					t.Skip(err)
				}
				c := *cred.Root()
				if uid != 0 {
					c = cred.Cred{Bounding: cred.AllCaps}
				}
				c.UID, c.EUID, c.SUID, c.FSUID, c.GID, c.EGID, c.SGID, c.FSGID = uid, uid, uid, uid, uid+5, uid+5, uid+5, uid+5
				c.Groups = []uint32{1001}
				if !c.Access(uint32(owner), uint32(owner), mode, false, 1) {
					require.ErrorIs(t, err, syscall.EACCES)
					continue
				}
				require.NoError(t, err)
				got := newCred(&c, Attr{Mode: mode, UID: uint32(owner), GID: uint32(owner)}, false)
				// The auxiliary vector is somewhere in what was written; its first tag is AT_SYSINFO_EHDR.
				stack := out[elftest.EntrySize:]
				for binary.LittleEndian.Uint64(stack) != linux.AT_SYSINFO_EHDR {
					stack = stack[8:]
				}
				secure := uint64(0)
				if got.secure {
					secure = 1
				}
				for tag, want := range map[uint64]uint64{linux.AT_UID: uint64(got.cred.UID), linux.AT_EUID: uint64(got.cred.EUID),
					linux.AT_GID: uint64(got.cred.GID), linux.AT_EGID: uint64(got.cred.EGID), linux.AT_SECURE: secure} {
					v, _ := aux(stack, tag)
					require.Equal(t, v, want, "tag %d, uid %d runs %o of %d", tag, uid, mode, owner)
				}
			}
		}
	}
}
