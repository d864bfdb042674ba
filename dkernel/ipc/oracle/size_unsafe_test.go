package oracle

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"dinos/kernel/linux"
)

func TestSizes(t *testing.T) {
	require.Equal(t, unsafe.Sizeof(unix.Termios{}), unsafe.Sizeof(linux.Termios{}))
	require.Equal(t, unsafe.Sizeof(unix.Winsize{}), unsafe.Sizeof(linux.Winsize{}))
	require.Equal(t, unsafe.Sizeof(unix.Ucred{}), unsafe.Sizeof(linux.Ucred{}))
	require.Equal(t, unsafe.Sizeof(unix.Msghdr{}), unsafe.Sizeof(linux.Msghdr{}))
	require.Equal(t, unsafe.Sizeof(unix.Cmsghdr{}), unsafe.Sizeof(linux.Cmsghdr{}))
	require.Equal(t, unsafe.Sizeof(unix.Linger{}), unsafe.Sizeof(linux.Linger{}))
	require.Equal(t, unsafe.Sizeof(unix.PollFd{}), unsafe.Sizeof(linux.PollFD{}))
	require.Equal(t, unsafe.Sizeof(unix.SignalfdSiginfo{}), unsafe.Sizeof(linux.SignalfdSiginfo{}))
}
