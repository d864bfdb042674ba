package vmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"dinos/kernel/testproto"
	"dinos/qemu/vm"
)

// guest is what a session needs of a machine; *vm.VM has it.
type guest interface {
	Console() *vm.Console
	Wait(ctx context.Context) (testproto.Exit, error)
	Hang(detail string) error
}

// session follows the protocol of one run. It is not safe for concurrent use.
type session struct {
	guest guest
	name  string   // of the machine
	want  []string // tests still to come, nil if the guest chooses
	boot  time.Duration
	line  int    // next console line
	under string // test under way, ""
	done  testproto.Event
	seen  testproto.Event // counts so far
}

func newSession(g guest, opt Options) *session {
	return &session{guest: g, name: opt.VM.Name, want: slices.Clone(opt.Tests), boot: opt.Boot}
}

// next returns the next event: Run, or the end of the test under way, or Done. The error is a *vm.GuestError or a *vm.HostError.
func (s *session) next(within time.Duration) (testproto.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		line, err := s.guest.Console().Line(ctx, s.line)
		switch {
		case errors.Is(err, io.EOF):
			return testproto.Event{}, s.ended()
		case errors.Is(err, context.DeadlineExceeded):
			return testproto.Event{}, s.hung(within)
		case err != nil:
			return testproto.Event{}, &vm.HostError{VM: s.name, Op: "read the console", Err: err}
		}
		s.line++
		e, ok, err := testproto.Parse(line)
		if !ok {
			continue
		}
		if err == nil {
			err = s.accept(e)
		}
		if err != nil {
			return testproto.Event{}, s.broke(err)
		}
		return e, nil
	}
}

// accept checks that e may come now.
func (s *session) accept(e testproto.Event) error {
	switch e.Event {
	case testproto.Run:
		if s.under != "" {
			return fmt.Errorf("%s starts while %s runs", e.Test, s.under)
		}
		if len(s.want) > 0 {
			if s.want[0] != e.Test {
				return fmt.Errorf("%s starts, want %s", e.Test, s.want[0])
			}
		}
		s.under = e.Test
		return nil
	case testproto.Done:
		switch {
		case s.under != "":
			return fmt.Errorf("done while %s runs", s.under)
		case len(s.want) > 0:
			return fmt.Errorf("done without having run %s", s.want[0])
		case e.Passed != s.seen.Passed || e.Failed != s.seen.Failed || e.Skipped != s.seen.Skipped:
			return fmt.Errorf("done with %d passed, %d failed, %d skipped; events say %d, %d, %d",
				e.Passed, e.Failed, e.Skipped, s.seen.Passed, s.seen.Failed, s.seen.Skipped)
		case e.Passed+e.Failed+e.Skipped == 0:
			return errors.New("done without having run any test")
		}
		s.done = e
		return nil
	}
	if e.Test != s.under {
		return fmt.Errorf("%s ends while %q runs", e.Test, s.under)
	}
	switch e.Event {
	case testproto.Pass:
		s.seen.Passed++
	case testproto.Fail:
		s.seen.Failed++
	case testproto.Skip:
		s.seen.Skipped++
	}
	if len(s.want) > 0 {
		s.want = s.want[1:]
	}
	s.under = ""
	return nil
}

// where describes the point that the run has reached.
func (s *session) where() string {
	switch {
	case s.under != "":
		return "in test " + s.under
	case s.line == 0:
		return "before the first line of output"
	case s.seen == testproto.Event{}:
		return "before the first test"
	}
	return "between tests"
}

// ended is why the console ended before Done.
func (s *session) ended() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.boot)
	defer cancel()
	if _, err := s.guest.Wait(ctx); err != nil {
		return fmt.Errorf("%s: %w", s.where(), err)
	}
	return &vm.GuestError{VM: s.name, Failure: vm.Exited, Detail: "as if it had passed, " + s.where(), Console: s.guest.Console().Tail()}
}

func (s *session) hung(after time.Duration) error {
	detail := fmt.Sprintf("no test event for %v, %s", after, s.where())
	if err := s.guest.Hang(detail); err != nil {
		return err
	}
	// It passed while it was asked: late, which is as bad.
	return &vm.GuestError{VM: s.name, Failure: vm.Hung, Detail: detail, Console: s.guest.Console().Tail()}
}

// broke is a violation of the protocol; the machine is of no more use.
func (s *session) broke(err error) error {
	return &vm.GuestError{VM: s.name, Failure: vm.Failed, Detail: "test protocol: " + err.Error(), Console: s.guest.Console().Tail()}
}

// finish waits for the exit after Done and compares it with the outcome.
func (s *session) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.boot)
	defer cancel()
	e, err := s.guest.Wait(ctx)
	var g *vm.GuestError
	failed := errors.As(err, &g) && g.Failure == vm.Failed
	switch {
	case s.done.Failed > 0 && failed, s.done.Failed == 0 && err == nil:
		return nil
	case err != nil && !failed:
		return fmt.Errorf("after the last test: %w", err)
	}
	return s.broke(fmt.Errorf("%d tests failed, but the exit is %v", s.done.Failed, e))
}
