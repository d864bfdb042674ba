package linux

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestErrno(t *testing.T) {
	for e := Errno(1); e <= ERFKILL; e++ {
		require.Equal(t, syscall.Errno(e).Error(), e.Error(), "%d", uint64(e))
	}
	require.Equal(t, "ENOENT", ENOENT.Name())
	require.Equal(t, "errno 41", Errno(41).Name()) // a gap
	require.Equal(t, "errno 516", ERESTART_RESTARTBLOCK.Error())
	require.Equal(t, ^uint64(1), ENOENT.Ret())
	var err error = EAGAIN
	require.True(t, err == EAGAIN)
	require.Zero(t, testing.AllocsPerRun(10, func() { err = EFAULT }))
}
