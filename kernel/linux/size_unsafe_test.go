package linux

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// The sizes are those of Linux' headers on x86-64 (sizeof, by a C program).
func TestSizes(t *testing.T) {
	require.EqualValues(t, 128, unsafe.Sizeof(Siginfo{}))
	require.EqualValues(t, 512, unsafe.Sizeof(FPState{}))
	require.EqualValues(t, 256, unsafe.Sizeof(Sigcontext{}))
	require.EqualValues(t, 424, unsafe.Sizeof(Ucontext{}))
	require.EqualValues(t, 32, unsafe.Sizeof(Sigaction{}))
	require.EqualValues(t, 24, unsafe.Sizeof(Stack{}))
	require.EqualValues(t, 12, unsafe.Sizeof(EpollEvent{}))
	require.EqualValues(t, 144, unsafe.Sizeof(Stat{}))
	require.EqualValues(t, 256, unsafe.Sizeof(Statx{}))
	require.EqualValues(t, 120, unsafe.Sizeof(Statfs{}))
	require.EqualValues(t, 32, unsafe.Sizeof(Flock{}))
	require.EqualValues(t, 24, unsafe.Sizeof(OpenHow{}))
	require.EqualValues(t, 40, unsafe.Offsetof(Ucontext{}.Context))
	require.EqualValues(t, 296, unsafe.Offsetof(Ucontext{}.Sigmask))
}
