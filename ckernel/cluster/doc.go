// Package cluster is the control kernel's decisions: who is a member of the rack and who owns what, as a deterministic state machine without
// clock, goroutine or I/O.
package cluster
