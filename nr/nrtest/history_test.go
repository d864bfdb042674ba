package nrtest

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPictureOfAFailure: a history that cannot be is refused, and its picture is where the error says.
func TestPictureOfAFailure(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var h History
	h.Return(h.Call(0, Op{Kind: Add, Arg: 3}, 1), 3, 2)
	h.Return(h.Call(1, Op{Kind: Get}, 3), 0, 4) // the add had returned
	err := h.Check("lost update")
	require.ErrorContains(t, err, "not linearizable")
	picture, err := os.ReadFile(os.Getenv("TMPDIR") + "/nr-lost-update.html")
	require.NoError(t, err)
	require.Contains(t, string(picture), "add 3 to 0")
}

// TestUnknownOutcome: an op whose caller never heard may have had its effect, or not.
func TestUnknownOutcome(t *testing.T) {
	for _, seen := range []uint32{0, 3} {
		var h History
		h.Call(0, Op{Kind: Add, Arg: 3}, 1)
		h.Return(h.Call(1, Op{Kind: Get}, 3), seen, 4)
		require.NoError(t, h.Check("unknown"))
	}
}
