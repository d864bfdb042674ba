package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/kernel/rtbench"
	"dinos/qemu/vmtest"
)

// TestBenchRPC runs the benchmark with few calls, without Linux, which may have to be downloaded.
func TestBenchRPC(t *testing.T) {
	if os.Getenv("DINOS_LONG") != "1" {
		t.Skip("set DINOS_LONG=1: it builds kernels and starts several machines")
	}
	vmtest.RequireQEMU(t)
	path := filepath.Join(t.TempDir(), "rpc.csv")
	var out bytes.Buffer
	require.NoError(t, run([]string{"bench", "rpc", "--quick", "--no-tcp", "--rounds=1", "--dkernels=2", "--csv=" + path}, strings.NewReader(""), &out))
	for _, row := range []string{rowAwake, rowHalted, "1 dkernels, pipelined", "2 dkernels, one at a time each", "2 dkernels, pipelined"} {
		require.Contains(t, out.String(), row)
	}
	csv, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1+1+1+2+4, strings.Count(string(csv), "\n"), "%s", csv)
	require.Error(t, run([]string{"bench", "rpc", "--dkernels=99"}, strings.NewReader(""), &out))
}

// TestRPCRows: medians over rounds and kernels, the least of all, and the rate of all together.
func TestRPCRows(t *testing.T) {
	s := func(what, system string, peer int, min, p50, p99 float64) rpcSample {
		return rpcSample{what: what, system: system, peer: peer, r: rtbench.Result{Min: min, P50: p50, P99: p99, N: 1}}
	}
	opt := rpcOptions{rounds: 2}
	samples := []rpcSample{s(rowAwake, "dinos", 1, 1000, 2000, 9000), s(rowHalted, "dinos", 1, 5000, 5000, 5000), s(rowAwake, "dinos", 1, 1500, 4000, 7000),
		s(rowTCPBlock, "Linux", 0, 40000, 80000, 90000), s(rowTCPPoll, "Linux", 0, 30000, 60000, 90000), s(rowTCPIdle, "Linux", 0, 50000, 50000, 50000)}
	rows, by := rpcRows(opt, samples)
	require.Len(t, rows, 5)
	require.Equal(t, rpcRow{name: "dinos: " + rowAwake, min: 1, p50: 3, p99: 8, rate: (500 + 250) / 2}, by[rowAwake])
	var out bytes.Buffer
	require.NoError(t, printRPC(&out, opt, samples))
	require.Contains(t, out.String(), "TCP takes as long as 30.0 (min), 20.0 (p50), 11.2 (p99) RPCs, awake")
	require.Contains(t, out.String(), "TCP takes as long as 10.0 (min), 10.0 (p50), 10.0 (p99) RPCs, halted")
}
