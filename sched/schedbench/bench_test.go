package schedbench

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRun checks that the tables come out and have a row for every target; times are not judged here.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the whole bench")
	}
	var out, rows bytes.Buffer
	require.NoError(t, Run(&out, Options{Seed: 1, Quick: true, NoExact: true, CSV: &rows, Policies: []string{"locality"}}))
	t.Log("\n" + out.String())
	for _, want := range []string{"100 x 96 x 1024, batch 50", "small suite", "proved", "gap by tier", "is skipped: cbc"} {
		require.Contains(t, out.String(), want)
	}
	r := csv.NewReader(&rows)
	r.FieldsPerRecord = -1
	all, err := r.ReadAll()
	require.NoError(t, err)
	require.Greater(t, len(all), 12)
	require.ErrorContains(t, Run(&out, Options{Policies: []string{"nonesuch"}}), "no shipped policy")
	require.False(t, strings.Contains(out.String(), "%!"), "a malformed line")
}
