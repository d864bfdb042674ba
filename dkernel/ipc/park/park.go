// Package park is what the blocking operations of dkernel/ipc are made of.
package park

import (
	"sync"

	"dinos/dkernel/wait"
	"dinos/kernel/linux"
)

// entries are places in queues for sleeping threads. A thread needs one for each sleep; taken from here, none is allocated.
var entries = sync.Pool{New: func() any { return new(wait.Entry) }}

// Until is wait.Sleeper.Until without its allocation: it calls try until that returns something else than linux.EAGAIN, which it
// returns, and sleeps in between until mask happens at q. It fails as wait.Sleeper.Sleep does, and with linux.EAGAIN at once if s
// is nil. The caller holds no lock that try takes.
func Until(s *wait.Sleeper, q *wait.Queue, mask wait.Events, deadline int64, try func() error) error {
	err := try()
	if err != linux.EAGAIN || s == nil {
		return err
	}
	e := entries.Get().(*wait.Entry)
	e.W, e.Mask = s, mask
	q.Add(e)
	for {
		if err = try(); err != linux.EAGAIN {
			break
		}
		if err = s.Sleep(deadline); err != nil {
			// It may have come true in the same moment; what was taken must not be lost.
			if last := try(); last != linux.EAGAIN {
				err = last
			}
			break
		}
	}
	q.Remove(e)
	e.W = nil
	entries.Put(e)
	return err
}
