//go:build race

package ipctest

// Race tells that the race detector is on. Pools then drop things at random, so that counts of allocations mean nothing.
const Race = true
