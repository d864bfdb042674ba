package proc

import (
	"sync"
	"sync/atomic"
)

// user is what all processes of a real user id use together, for limits.
type user struct {
	uid     uint32
	refs    int          // guarded by users.mu
	threads atomic.Int64 // RLIMIT_NPROC
	signals atomic.Int64 // RLIMIT_SIGPENDING
}

// Release implements signal.Quota.
func (u *user) Release() { u.signals.Add(-1) }

// charge counts a pending signal, unless limit is reached and not to be overridden.
func (u *user) charge(limit uint64, override bool) bool {
	if n := u.signals.Add(1); override || uint64(n) <= limit {
		return true
	}
	u.signals.Add(-1)
	return false
}

// users has the users with processes, and those who still have pending signals somewhere: these few are kept.
type users struct {
	mu sync.Mutex
	m  map[uint32]*user
}

func (us *users) get(uid uint32) *user {
	us.mu.Lock()
	defer us.mu.Unlock()
	u := us.m[uid]
	if u == nil {
		u = &user{uid: uid}
		us.m[uid] = u
	}
	u.refs++
	return u
}

// ref adds a reference for another process.
func (us *users) ref(u *user) {
	us.mu.Lock()
	u.refs++
	us.mu.Unlock()
}

func (us *users) put(u *user) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u.refs--; u.refs == 0 && u.signals.Load() == 0 {
		delete(us.m, u.uid)
	}
}
