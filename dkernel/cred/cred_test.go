package cred

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAccess(t *testing.T) {
	user := &Cred{UID: 1000, EUID: 1000, FSUID: 1000, FSGID: 100, Groups: []uint32{7, 8}}
	reader := &Cred{FSUID: 5, FSGID: 5, Effective: 1 << DAC_READ_SEARCH}
	for _, c := range []struct {
		who            *Cred
		uid, gid, mode uint32
		dir            bool
		want           uint32
		ok             bool
	}{
		{user, 1000, 1, 0o600, false, 6, true}, {user, 1000, 1, 0o400, false, 2, false},
		{user, 1000, 100, 0o077, false, 4, false}, // the owner's bits count, even if others may more
		{user, 1, 8, 0o640, false, 4, true}, {user, 1, 8, 0o640, false, 2, false},
		{user, 1, 100, 0o060, false, 6, true}, {user, 1, 1, 0o001, false, 1, true}, {user, 1, 1, 0o001, false, 5, false},
		{Root(), 1, 1, 0, false, 6, true}, {Root(), 1, 1, 0, false, 1, false}, {Root(), 1, 1, 0o100, false, 1, true}, {Root(), 1, 1, 0, true, 7, true},
		{reader, 1, 1, 0, false, 4, true}, {reader, 1, 1, 0, false, 6, false}, {reader, 1, 1, 0, true, 5, true}, {reader, 1, 1, 0, true, 2, false},
	} {
		require.Equal(t, c.ok, c.who.Access(c.uid, c.gid, c.mode, c.dir, c.want), "%+v", c)
	}
}
