package signal

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/kernel/linux"
)

func TestSets(t *testing.T) {
	require.Equal(t, Set(1<<8|1<<18), Unblockable)
	require.Equal(t, 11, Of(1, 11, 9).First(), "faults first")
	require.Equal(t, 9, Of(9, 64).First())
	require.Zero(t, Set(0).First())
	for sig, core := range map[int]bool{linux.SIGSEGV: true, linux.SIGQUIT: true, linux.SIGTERM: false, linux.SIGXCPU: true, linux.SIGTRAP: true} {
		require.Equal(t, core, Cores.Has(sig))
	}
}

func TestInfoLayout(t *testing.T) {
	var b [InfoSize]byte
	for i := range b {
		b[i] = 0xff
	}
	i := Child(linux.SIGCHLD, linux.CLD_EXITED, 77, 5, 3, 10, 20)
	i.Put(b[:])
	var j Info
	require.NoError(t, j.Get(b[:]))
	require.Equal(t, i, j)
	require.EqualValues(t, []byte{17, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0}, b[:28])
	require.Equal(t, make([]byte, 80), b[48:])
	require.EqualValues(t, 77, j.PID())
	require.EqualValues(t, 3, j.Status())
	u, s := j.Times()
	require.EqualValues(t, []int64{10, 20}, []int64{u, s})
	// What does not fit is refused, unless the layout is known.
	b[100] = 1
	require.NoError(t, j.Get(b[:]))
	b[8], b[9], b[10], b[11] = 0x9c, 0xff, 0xff, 0xff // -100
	require.Equal(t, linux.E2BIG, j.Get(b[:]))
}

// model is what Pending should do, plainly.
type model []Info

func TestPendingModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Pending
		var pool Pool
		var m model
		sigs := rapid.SampledFrom([]int{1, 9, 11, 17, 32, 40, 64})
		set := func(s Set) (r Set) {
			for _, i := range m {
				r |= Of(int(i.Signo)) & s
			}
			return r
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				i := From(sigs.Draw(t, "sig"), 0, int32(len(m)), rapid.Uint32().Draw(t, "uid"))
				if p.Legacy(int(i.Signo)) {
					require.True(t, set(^Set(0)).Has(int(i.Signo)) && i.Signo < 32)
					return
				}
				p.Add(&pool, i, nil)
				m = append(m, i)
			},
			"take": func(t *rapid.T) {
				want := Set(rapid.Uint64().Draw(t, "want"))
				i, ok := p.Take(&pool, want)
				sig := set(want).First()
				require.Equal(t, sig != 0, ok)
				for n, x := range m {
					if int(x.Signo) == sig {
						require.Equal(t, x, i)
						m = append(m[:n:n], m[n+1:]...)
						break
					}
				}
			},
			"drop": func(t *rapid.T) {
				s := Of(sigs.Draw(t, "sig"))
				p.Drop(&pool, s)
				var n model
				for _, x := range m {
					if !s.Has(int(x.Signo)) {
						n = append(n, x)
					}
				}
				m = n
			},
			"": func(t *rapid.T) { require.Equal(t, set(^Set(0)), p.Set()) },
		})
	})
}

type quota int

func (q *quota) Release() { *q-- }

func TestQuotaIsReleased(t *testing.T) {
	var p Pending
	var pool Pool
	var q quota = 3
	for range 3 {
		p.Add(&pool, From(40, linux.SI_QUEUE, 1, 1), &q)
	}
	p.Take(&pool, ^Set(0))
	require.EqualValues(t, 2, q)
	p.Drop(&pool, Of(40))
	require.Zero(t, q)
	require.Zero(t, p.Set())
	// A mark has no siginfo, and goes away when taken.
	p.Mark(40)
	i, ok := p.Take(&pool, ^Set(0))
	require.True(t, ok)
	require.Equal(t, Info{Signo: 40}, i)
	_, ok = p.Take(&pool, ^Set(0))
	require.False(t, ok)
}

func TestFaultsFirst(t *testing.T) {
	var p Pending
	var pool Pool
	p.Add(&pool, From(linux.SIGSEGV, linux.SI_USER, 1, 1), nil)
	_, ok := p.TakeFault(&pool, ^Set(0))
	require.False(t, ok, "a kill is no fault")
	p.Add(&pool, Fault(linux.SIGBUS, linux.BUS_ADRERR, 8), nil)
	_, ok = p.TakeFault(&pool, ^Of(linux.SIGBUS))
	require.False(t, ok)
	i, ok := p.TakeFault(&pool, ^Set(0))
	require.True(t, ok)
	require.EqualValues(t, linux.SIGBUS, i.Signo)
	require.Equal(t, Of(linux.SIGSEGV), p.Set())
}

func TestActions(t *testing.T) {
	a := NewActions()
	require.Equal(t, Ignored, a.Ignored())
	a.Set(10, Action{Handler: 5, Flags: linux.SA_RESETHAND | linux.SA_UNSUPPORTED | linux.SA_SIGINFO, Mask: ^Set(0), Restorer: 3})
	got := a.Get(10)
	require.EqualValues(t, linux.SA_RESETHAND|linux.SA_SIGINFO, got.Flags, "unknown flags are not kept")
	require.Equal(t, ^Unblockable, got.Mask)
	b := a.Copy()
	require.Equal(t, got, a.Take(10))
	require.Equal(t, linux.SIG_DFL, int(a.Take(10).Handler))
	a.Set(12, Action{Handler: linux.SIG_IGN, Flags: linux.SA_RESTART})
	a.Set(17, Action{Handler: 9})
	require.Equal(t, Ignored&^Of(17)|Of(12), a.Ignored())
	caught, ignored := a.Caught()
	require.Equal(t, Of(17), caught)
	require.Equal(t, Of(12), ignored)
	a.Exec()
	require.Equal(t, Action{Handler: linux.SIG_IGN}, a.Get(12))
	require.Equal(t, Action{}, a.Get(17))
	require.Equal(t, got, b.Get(10), "a copy is a copy")
	require.False(t, b.Shared())
	b.Ref()
	require.True(t, b.Shared())
	b.Unref()
	require.False(t, b.Shared())
}
