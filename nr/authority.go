package nr

import (
	"fmt"

	"dinos/nr/oplog"
	"dinos/nr/replica"
	"dinos/shmem/region"
)

// Authority is access to an instance for whoever decides about membership and does not know what is replicated: it can look and
// evict, not read or apply. It is safe for concurrent use.
type Authority struct {
	group replica.Group[struct{}, struct{}]
}

// Attach opens memory that Format has laid out, whatever its op type. What it finds there is checked against mem.
func Attach(mem []byte) (*Authority, error) {
	r, err := region.New(mem)
	if err != nil {
		return nil, err
	}
	if _, err := r.ReadHeader(0, groupMagic, groupVersion); err != nil {
		return nil, fmt.Errorf("nr: not a formatted instance: %w", err)
	}
	n, err := r.LoadU64(groupLogs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if n < 1 || n > replica.MaxLogs {
		return nil, fmt.Errorf("%w: the memory has %d logs, want 1 to %d", ErrCorrupt, n, replica.MaxLogs)
	}
	a := &Authority{}
	for i := range int(n) {
		l, err := openAny(r, i)
		if err != nil {
			return nil, err
		}
		a.group.Logs = append(a.group.Logs, l)
	}
	if n > 1 {
		if a.group.Cross, err = openAny(r, int(n)); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Evict is [Instance.Evict].
func (a *Authority) Evict(id ID, dead bool) error { return a.group.Evict(id, dead) }

// Release is [Instance.Release].
func (a *Authority) Release(id ID) error { return a.group.Release(id) }

// Members is [Instance.Members].
func (a *Authority) Members() []MemberInfo { return a.group.Members() }

// Logs are the logs, for tools; the cross log, if there is one, comes last.
func (a *Authority) Logs() []*oplog.Log {
	logs := append([]*oplog.Log(nil), a.group.Logs...)
	if a.group.Cross != nil {
		logs = append(logs, a.group.Cross)
	}
	return logs
}
