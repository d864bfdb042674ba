package sys

import (
	"dinos/dkernel/ipc/socket"
)

// Sockets.

func socketCalls() []Call {
	i := func(v uint64) int { return int(int32(v)) }
	return []Call{
		{"socket", func(t *Task, a *Args) (uint64, error) {
			return number(t.K.Sockets.Create(t.C, i(a[0]), i(a[1]), i(a[2])))
		}, Partial, "AF_UNIX"},
		{"socketpair", func(t *Task, a *Args) (uint64, error) {
			return 0, t.K.Sockets.Pair(t.C, i(a[0]), i(a[1]), i(a[2]), a[3])
		}, Full, ""},
		{"bind", func(t *Task, a *Args) (uint64, error) { return 0, socket.Bind(t.C, fd(a[0]), a[1], i(a[2])) }, Full, ""},
		{"listen", func(t *Task, a *Args) (uint64, error) { return 0, socket.Listen(t.C, fd(a[0]), i(a[1])) }, Full, ""},
		{"connect", func(t *Task, a *Args) (uint64, error) { return 0, socket.Connect(t.C, fd(a[0]), a[1], i(a[2])) }, Full, ""},
		{"accept", func(t *Task, a *Args) (uint64, error) { return number(socket.Accept4(t.C, fd(a[0]), a[1], a[2], 0)) }, Full, ""},
		{"accept4", func(t *Task, a *Args) (uint64, error) {
			return number(socket.Accept4(t.C, fd(a[0]), a[1], a[2], uint32(a[3])))
		}, Full, ""},
		{"shutdown", func(t *Task, a *Args) (uint64, error) { return 0, socket.Shutdown(t.C, fd(a[0]), i(a[1])) }, Full, ""},
		{"getsockname", func(t *Task, a *Args) (uint64, error) {
			return 0, socket.Getsockname(t.C, fd(a[0]), a[1], a[2], false)
		}, Full, ""},
		{"getpeername", func(t *Task, a *Args) (uint64, error) {
			return 0, socket.Getsockname(t.C, fd(a[0]), a[1], a[2], true)
		}, Full, ""},
		{"setsockopt", func(t *Task, a *Args) (uint64, error) {
			return 0, socket.Setsockopt(t.C, fd(a[0]), i(a[1]), i(a[2]), a[3], i(a[4]))
		}, Full, ""},
		{"getsockopt", func(t *Task, a *Args) (uint64, error) {
			return 0, socket.Getsockopt(t.C, fd(a[0]), i(a[1]), i(a[2]), a[3], a[4])
		}, Full, ""},
		{"sendto", func(t *Task, a *Args) (uint64, error) {
			return count(socket.Sendto(t.C, fd(a[0]), a[1], a[2], uint32(a[3]), a[4], i(a[5])))
		}, Full, ""},
		{"recvfrom", func(t *Task, a *Args) (uint64, error) {
			return count(socket.Recvfrom(t.C, fd(a[0]), a[1], a[2], uint32(a[3]), a[4], a[5]))
		}, Full, ""},
		{"sendmsg", func(t *Task, a *Args) (uint64, error) {
			return count(socket.Sendmsg(t.C, fd(a[0]), a[1], uint32(a[2])))
		}, Full, ""},
		{"recvmsg", func(t *Task, a *Args) (uint64, error) {
			return count(socket.Recvmsg(t.C, fd(a[0]), a[1], uint32(a[2])))
		}, Full, ""},
		{"sendmmsg", func(t *Task, a *Args) (uint64, error) {
			return number(socket.Sendmmsg(t.C, fd(a[0]), a[1], i(a[2]), uint32(a[3])))
		}, Full, ""},
		{"recvmmsg", func(t *Task, a *Args) (uint64, error) {
			d, err := t.after(a[4])
			if err != nil {
				return 0, err
			}
			n, err := socket.Recvmmsg(t.C, fd(a[0]), a[1], i(a[2]), uint32(a[3]), d, t.K.Uptime)
			t.left(a[4], d, false)
			return number(n, err)
		}, Full, ""},
	}
}
