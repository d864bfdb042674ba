package vdso

import (
	"bytes"
	"debug/elf"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/boot/emit/emittest"
	"dinos/kernel/clock"
	"dinos/kernel/linux"
)

func TestDisassembly(t *testing.T) {
	for _, cpu := range []CPUSource{CPUFromSyscall, CPUFromRDTSCP} {
		l, err := code(0x4c0, cpu)
		require.NoError(t, err)
		listing, err := emittest.Listing(l, nil)
		require.NoError(t, err)
		require.Contains(t, listing, "rdtsc")
	}
	_, err := New(7)
	require.ErrorContains(t, err, "source of the CPU number: 7")
}

// TestELF reads the image with an independent reader, section by section.
func TestELF(t *testing.T) {
	img, err := New(CPUFromRDTSCP)
	require.NoError(t, err)
	require.Len(t, img.Bytes, PageSize)
	f, err := elf.NewFile(bytes.NewReader(img.Bytes))
	require.NoError(t, err)
	require.Equal(t, elf.ET_DYN, f.Type)
	names, err := f.DynString(elf.DT_SONAME)
	require.NoError(t, err)
	require.Equal(t, []string{"linux-vdso.so.1"}, names)
	syms, err := f.DynamicSymbols()
	require.NoError(t, err)
	require.Len(t, syms, 10)
	text := f.Section(".text")
	for _, s := range syms {
		require.Equal(t, "LINUX_2.6", s.Version, s.Name)
		require.Equal(t, elf.STT_FUNC, elf.ST_TYPE(s.Info))
		require.GreaterOrEqual(t, s.Value, text.Addr)
		require.LessOrEqual(t, s.Value+s.Size, text.Addr+text.Size)
		base, ok := img.Symbols[trimPrefix(s.Name)]
		require.True(t, ok, s.Name)
		require.EqualValues(t, base, s.Value)
	}
	vers, err := f.DynamicVersions()
	require.NoError(t, err)
	require.Len(t, vers, 2)
	require.Equal(t, []string{"linux-vdso.so.1"}, []string{vers[0].Name})
	load := f.Progs[0]
	require.Equal(t, elf.PT_LOAD, load.Type)
	require.Equal(t, elf.PF_R|elf.PF_X, load.Flags)
	require.EqualValues(t, len(img.Bytes), load.Filesz)
}

// served are the clocks with what has to be added to the monotonic one.
func served(c *Clock) map[int]int64 {
	return map[int]int64{
		linux.CLOCK_REALTIME: c.Wall, linux.CLOCK_REALTIME_COARSE: c.Wall, linux.CLOCK_TAI: c.Wall + c.TAI*1e9,
		linux.CLOCK_MONOTONIC: 0, linux.CLOCK_MONOTONIC_RAW: 0, linux.CLOCK_MONOTONIC_COARSE: 0, linux.CLOCK_BOOTTIME: 0,
	}
}

// TestArithmetic compares every function with package clock, between two readings of the counter, for clocks of all sizes.
func TestArithmetic(t *testing.T) {
	m := mapVDSO(t, CPUFromSyscall)
	gettime, day, seconds, tsc := m.clockFunction(t, "clock_gettime"), m.function(t, "gettimeofday"), m.function(t, "time"), m.tsc(t)
	ts, tv, zone, sec := new(linux.Timespec), new(linux.Timespec), new(uint64), new(int64)
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		hz := uint64(1e6) + rnd.Uint64N(6e9)
		k := clock.New(tsc()-rnd.Uint64N(1<<rnd.IntN(50)), hz)
		if round%10 == 0 {
			k = clock.New(tsc()+1<<40, hz) // the counter is behind
		}
		c := &Clock{TAI: rnd.Int64N(40)}
		c.Base, c.Mult = k.Scale()
		c.Wall = rnd.Int64N(1 << (20 + rnd.IntN(42)))
		if round%7 == 0 {
			c.Wall = math.MaxInt64 - k.At(tsc()+1<<32) - 41e9 // as large as a time can be
			if c.Wall < 0 {
				continue
			}
		}
		m.writer.Set(c)
		for id, offset := range served(c) {
			lo := k.At(tsc())
			require.Zero(t, gettime(id, pointer(ts)))
			hi := k.At(tsc())
			got := ts.Sec*1e9 + ts.Nsec
			require.Less(t, uint64(ts.Nsec), uint64(1e9))
			require.GreaterOrEqual(t, got, lo+offset, "clock %d of %+v", id, c)
			require.LessOrEqual(t, got, hi+offset, "clock %d of %+v", id, c)
		}
		lo := k.At(tsc()) + c.Wall
		*zone = ^uint64(0)
		require.Zero(t, day(pointer(tv), pointer(zone)))
		require.Equal(t, seconds(pointer(sec), nil), *sec)
		hi := k.At(tsc()) + c.Wall
		require.Zero(t, *zone)
		require.Less(t, uint64(tv.Nsec), uint64(1e6))
		require.GreaterOrEqual(t, tv.Sec*1e6+tv.Nsec, lo/1000)
		require.LessOrEqual(t, tv.Sec*1e6+tv.Nsec, hi/1000)
		require.GreaterOrEqual(t, *sec, lo/1e9)
		require.LessOrEqual(t, *sec, hi/1e9)
	}
	tv.Sec = 77
	require.Zero(t, day(nil, nil), "both pointers may be missing")
	require.Zero(t, day(nil, pointer(zone)))
	require.NotZero(t, seconds(nil, nil))
	require.EqualValues(t, 77, tv.Sec)
}

func TestResolution(t *testing.T) {
	m := mapVDSO(t, CPUFromSyscall)
	m.writer.Set(&Clock{Mult: 1 << 32})
	res := m.clockFunction(t, "clock_getres")
	ts := new(linux.Timespec)
	for id := range served(&Clock{}) {
		want := int64(1)
		if id == linux.CLOCK_REALTIME_COARSE || id == linux.CLOCK_MONOTONIC_COARSE {
			want = CoarseResolution
		}
		*ts = linux.Timespec{Sec: 5, Nsec: 5}
		require.Zero(t, res(id, pointer(ts)))
		require.Equal(t, linux.Timespec{Nsec: want}, *ts, "clock %d", id)
		require.Zero(t, res(id, nil))
	}
}

// TestFallback: what the functions do not know the kernel answers, here the real one.
func TestFallback(t *testing.T) {
	m := mapVDSO(t, CPUFromSyscall)
	gettime, day, seconds := m.clockFunction(t, "clock_gettime"), m.function(t, "gettimeofday"), m.function(t, "time")
	ts := new(linux.Timespec)
	check := func(name string, ids ...int) {
		for _, id := range ids {
			var real linux.Timespec
			require.Zero(t, realClock(id, &real), "%s: %d", name, id)
			require.Zero(t, gettime(id, pointer(ts)), "%s: %d", name, id)
			require.GreaterOrEqual(t, ts.Sec*1e9+ts.Nsec, real.Sec*1e9+real.Nsec, "%s: %d", name, id)
		}
	}
	now := time.Now().Unix()
	check("no clock yet", linux.CLOCK_MONOTONIC, linux.CLOCK_REALTIME, linux.CLOCK_PROCESS_CPUTIME_ID)
	require.GreaterOrEqual(t, seconds(nil, nil), now)
	require.Zero(t, day(pointer(ts), nil))
	require.GreaterOrEqual(t, ts.Sec, now)
	m.writer.Set(&Clock{Mult: 1})
	check("other clocks", linux.CLOCK_PROCESS_CPUTIME_ID, linux.CLOCK_THREAD_CPUTIME_ID, -6 /* of this process */)
	require.Less(t, seconds(nil, nil), now, "the clock that was set")
	for _, id := range []int{12, 15, 16, 31, 1 << 20, -1 << 31} {
		require.EqualValues(t, -int64(syscall.EINVAL), gettime(id, pointer(ts)), "clock %d", id)
	}
	m.writer.Stop()
	check("stopped", linux.CLOCK_MONOTONIC, linux.CLOCK_REALTIME)
	require.GreaterOrEqual(t, seconds(nil, nil), now)
}

// TestRealClock sets the clock by this machine's and compares the two a while later.
func TestRealClock(t *testing.T) {
	m := mapVDSO(t, CPUFromSyscall)
	gettime, tsc := m.clockFunction(t, "clock_gettime"), m.tsc(t)
	ts := new(linux.Timespec)
	// pair reads counter and clock at nearly the same time: the best of some tries.
	pair := func() (ticks uint64, ns int64, width uint64) {
		width = math.MaxUint64
		for range 200 {
			a := tsc()
			var now linux.Timespec
			realClock(linux.CLOCK_MONOTONIC, &now)
			if b := tsc(); b-a < width {
				ticks, ns, width = a+(b-a)/2, now.Sec*1e9+now.Nsec, b-a
			}
		}
		return ticks, ns, width
	}
	t0, n0, w0 := pair()
	time.Sleep(50 * time.Millisecond)
	t1, n1, w1 := pair()
	hz := clock.Hz(t1-t0, uint64(n1-n0), 1e9)
	require.NotZero(t, hz)
	c := clock.New(t0, hz)
	set := &Clock{Wall: time.Now().UnixNano() - n0}
	set.Base, set.Mult = c.Scale()
	m.writer.Set(set)
	// The clock runs from t0 on, so it lags by n0; its error is that of the rate and of the two pairs.
	var before, after linux.Timespec
	realClock(linux.CLOCK_MONOTONIC, &before)
	require.Zero(t, gettime(linux.CLOCK_MONOTONIC, pointer(ts)))
	realClock(linux.CLOCK_MONOTONIC, &after)
	got := n0 + ts.Sec*1e9 + ts.Nsec
	slack := int64(c.At(t0+w0)+c.At(t0+w1))*2*(got-n0)/(n1-n0) + 1000
	require.GreaterOrEqual(t, got, before.Sec*1e9+before.Nsec-slack)
	require.LessOrEqual(t, got, after.Sec*1e9+after.Nsec+slack)
	t.Logf("%d Hz, %v after setting the clock it is between %v and %v of Linux' (slack %v)", hz, time.Duration(got-n1),
		time.Duration(got-before.Sec*1e9-before.Nsec), time.Duration(got-after.Sec*1e9-after.Nsec), time.Duration(slack))
}

// TestTornReads changes the clock under readers: each value must be of one version, and two fields of different ones are far off.
func TestTornReads(t *testing.T) {
	m := mapVDSO(t, CPUFromSyscall)
	gettime := m.clockFunction(t, "clock_gettime")
	// Version i shows i·10¹² ns and a bit: the counter is before Base, so that nothing moves, or Mult is 0.
	versions := []*Clock{{Base: 0, Mult: 0, Wall: 0}, {Base: math.MaxUint64, Mult: math.MaxUint64, Wall: 1e12}, {Base: 0, Mult: 0, Wall: 2e12}}
	m.writer.Set(versions[0])
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			ts := new(linux.Timespec)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for range 100 {
					gettime(linux.CLOCK_REALTIME, pointer(ts))
					if ts.Nsec != 0 || ts.Sec%1000 != 0 || ts.Sec > 2000 {
						t.Errorf("torn: %+v", *ts)
						return
					}
				}
			}
		})
	}
	for i := range 5_000 {
		m.writer.Set(versions[i%len(versions)])
		if i%100 == 0 {
			runtime.Gosched()
		}
	}
	close(stop)
	readers.Wait()
}

func TestGetCPU(t *testing.T) {
	sources := []CPUSource{CPUFromSyscall}
	if hasRDTSCP() {
		sources = append(sources, CPUFromRDTSCP)
	}
	for _, src := range sources {
		getcpu := mapVDSO(t, src)
		f := getcpu.function(t, "getcpu")
		runtime.LockOSThread()
		var set [128]byte
		for cpu := range runtime.NumCPU() {
			clear(set[:])
			set[cpu/8] = 1 << (cpu % 8)
			if setAffinity(set[:]) != 0 {
				continue // this process may not use it
			}
			c, n := new(uint32), new(uint32)
			*c, *n = 99, 99
			require.Zero(t, f(pointer(c), pointer(n)))
			require.EqualValues(t, cpu, *c)
			require.Less(t, *n, uint32(99))
			require.Zero(t, f(nil, nil))
		}
		// The thread ends with the goroutine: it stays locked to it.
	}
}

func BenchmarkClockGettime(b *testing.B) {
	m := mapVDSO(b, CPUFromSyscall)
	gettime := m.clockFunction(b, "clock_gettime")
	m.writer.Set(&Clock{Mult: 1 << 31})
	ts := new(linux.Timespec)
	for b.Loop() {
		gettime(linux.CLOCK_REALTIME, pointer(ts))
	}
}

func hasRDTSCP() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && bytes.Contains(info, []byte(" rdtscp "))
}
