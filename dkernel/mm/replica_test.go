package mm

import (
	"fmt"

	"dinos/nr"
)

// promote puts s under a log with a second replica, and returns what compares the two.
func promote(m *machine, s *Space) (func() error, error) {
	second := &tree{}
	made := 0
	cfg := nr.Config[op, both]{Entries: 64, Replicas: 2, Threads: 40, ArenaBytes: 8192, New: func(int) nr.Structure[op, both] {
		if made++; made == 1 {
			return s.tree
		}
		return second
	}}
	in, err := nr.New(cfg)
	if err != nil {
		return nil, err
	}
	rep, err := in.First()
	if err != nil {
		return nil, err
	}
	binds := map[uint64]*binding{}
	second.vmas = vmas{}
	*second = *newTree(m.sys, s.tree.layout, func(h uint64) *binding {
		b := s.byHandle(h)
		if b != nil && binds[h] == nil {
			binds[h] = &binding{handle: h, id: b.id, obj: b.obj}
		}
		return binds[h]
	})
	second.onZap = second.zapLeaf
	second.id = 1
	if err := m.NewTables(&second.pt); err != nil {
		return nil, err
	}
	other, err := in.First()
	if err != nil {
		return nil, err
	}
	if err := s.engine.attach(rep); err != nil {
		return nil, err
	}
	return func() error {
		if err := other.Sync(); err != nil {
			return err
		}
		if a, b := s.tree.dump(), second.dump(); a != b {
			return fmt.Errorf("replicas differ:\n%s\n%s", a, b)
		}
		if second.out != nil {
			second.pt.Release(&second.out.flush)
		}
		return nil
	}, nil
}

// promoteOne puts s under a log of its own.
func promoteOne(s *Space) error {
	in, err := nr.New(nr.Config[op, both]{Entries: 64, Replicas: 2, Threads: 40, ArenaBytes: 8192,
		New: func(int) nr.Structure[op, both] { return s.tree }})
	if err != nil {
		return err
	}
	rep, err := in.First()
	if err != nil {
		return err
	}
	return s.engine.attach(rep)
}
