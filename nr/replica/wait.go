package replica

import (
	"fmt"
	"runtime"

	"dinos/nr/oplog"
)

// Reason says what a caller waits for.
type Reason uint8

// The reasons. The first three are waits for goroutines of the same kernel, the last two for other replicas.
const (
	ForCombiner Reason = iota // another goroutine combines for this replica
	ForReaders                // reads of this replica have to end before an update
	ForWriter                 // an update has to end before a read
	ForPublish                // an op in the log was reserved and is not published yet
	ForRoom                   // the log is full until a replica consumes
)

func (r Reason) String() string {
	if r <= ForRoom {
		return [...]string{"combiner", "readers", "writer", "publish", "room"}[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Wait describes one turn of a wait.
type Wait struct {
	Reason  Reason
	Log     int           // index of the log, CrossLog for the cross log
	By      oplog.Blocker // ForPublish, ForRoom: who is waited for, and where
	Attempt int           // turns of this wait so far
}

// CrossLog is the index of the cross log in a [Wait].
const CrossLog = -1

// A Waiter passes the time of a caller that cannot go on: a kernel halts or runs other goroutines, rings the doorbell of
// the replica that is waited for, reports it to the membership authority. False gives up: the operation fails with
// [ErrStalled]. For ForReaders the answer is ignored. Wait is called by many goroutines and must not allocate.
type Waiter interface {
	Wait(w Wait) bool
}

// Spin is the default Waiter: it never gives up. It looks again at once a few times, as the wait is usually shorter than a
// switch of goroutines, then yields.
type Spin struct{}

// spinTurns is about a microsecond of looking again.
const spinTurns = 64

// Wait implements [Waiter].
func (Spin) Wait(w Wait) bool {
	if w.Attempt >= spinTurns {
		runtime.Gosched()
	}
	return true
}

// outcome is how a step under a combiner lock ended.
type outcome uint8

const (
	progressed outcome = iota
	atHole             // blocked by part.by
	atRoom             // blocked by part.by
	atBarrier          // cross ops up to part.crossing come first
	failed
)
