package signal

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// memory is a piece of a program's memory.
type memory struct {
	base uint64
	b    []byte
}

func (m *memory) at(addr, n uint64) ([]byte, error) {
	if addr < m.base || addr-m.base > uint64(len(m.b)) {
		return nil, linux.EFAULT
	}
	p := m.b[addr-m.base:]
	if uint64(len(p)) < n {
		return p, linux.EFAULT
	}
	return p[:n], nil
}

func (m *memory) CopyIn(dst []byte, addr uint64) (int, error) {
	p, err := m.at(addr, uint64(len(dst)))
	return copy(dst, p), err
}

func (m *memory) CopyOut(addr uint64, src []byte) (int, error) {
	p, err := m.at(addr, uint64(len(src)))
	return copy(p, src), err
}

func (m *memory) Zero(addr, n uint64) (uint64, error) {
	p, err := m.at(addr, n)
	clear(p)
	return uint64(len(p)), err
}

// cpu has an image of vector state, which it refuses if XSTATE_BV or MXCSR are not possible.
type cpu struct {
	image    []byte
	features uint64
	resets   int
}

func newCPU(size int, features uint64) *cpu {
	c := &cpu{make([]byte, size), features, 0}
	binary.LittleEndian.PutUint32(c.image[24:], ureg.DefaultMXCSR)
	return c
}

func (c *cpu) Size() int                    { return len(c.image) }
func (c *cpu) Features() uint64             { return c.features }
func (c *cpu) Save(_ *ureg.Frame, b []byte) { copy(b, c.image) }
func (c *cpu) Reset(*ureg.Frame)            { c.resets++ }
func (c *cpu) Load(_ *ureg.Frame, b []byte) bool {
	le := binary.LittleEndian
	if le.Uint32(b[24:])>>16 != 0 || le.Uint64(b[fxsaveLen:])&^c.features != 0 {
		return false
	}
	for _, x := range b[fxsaveLen+8 : fxsaveLen+64] {
		if x != 0 {
			return false
		}
	}
	copy(c.image, b)
	return true
}

// The frames of testdata are Linux': ours are the same, to the byte and the address.
func TestFramesOfLinux(t *testing.T) {
	file, err := os.Open("testdata/frames.txt")
	require.NoError(t, err)
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	n := 0
	for lines.Scan() {
		var name, text string
		var sp, altSP, altSize uint64
		_, err := fmt.Sscanf(lines.Text(), "%s %x %x %x %s", &name, &sp, &altSP, &altSize, &text)
		require.NoError(t, err)
		want, err := hex.DecodeString(text)
		require.NoError(t, err)
		t.Run(name, func(t *testing.T) { linuxFrame(t, name, sp, altSP, altSize, want) })
		n++
	}
	require.Equal(t, 5, n)
}

func linuxFrame(t *testing.T, name string, sp, altSP, altSize uint64, want []byte) {
	le := binary.LittleEndian
	word := func(i int) uint64 { return le.Uint64(want[offContext+8*i:]) }
	size := int(le.Uint32(want[offFP+fxReserved+16:]))
	features := le.Uint64(want[offFP+fxReserved+8:])
	// What the program has set, and for the rest what Linux says it was.
	f := ureg.Frame{R8: 0x8888888888888888, R9: 0x9999999999999999, R10: 0x1010101010101010, R12: 0x5555555555555555,
		R13: 0x6666666666666666, R14: 0x7777777777777777, R15: 0x0123456789abcdef, RBX: 0x3333333333333333, RBP: 0x4444444444444444,
		R11: word(3), RDI: word(8), RSI: word(9), RDX: word(12), RAX: word(13), RCX: word(14), RSP: word(15), RIP: word(16), RFLAGS: word(17)}
	c := newCPU(size, features)
	copy(c.image, want[offFP:])
	clear(c.image[fxReserved:fxsaveLen])
	c.image[fxsaveLen] &^= 3 // Linux sets these always
	d := Context{Action: Action{Handler: 0x1234, Flags: linux.SA_SIGINFO | linux.SA_RESTORER, Restorer: le.Uint64(want)}}
	require.NoError(t, d.Info.Get(want[offInfo:offInfo+InfoSize]))
	pid := d.Info.PID()
	d.Info = From(linux.SIGUSR1, linux.SI_TKILL, pid, 0)
	switch name {
	case "alt", "autodisarm":
		d.Alt = AltStack{SP: altSP, Size: altSize}
		if name == "autodisarm" {
			d.Alt.Flags = linux.SS_AUTODISARM
		}
		d.Action.Flags |= linux.SA_ONSTACK
	case "fault":
		d.Info = Fault(linux.SIGSEGV, linux.SEGV_MAPERR, 0x18)
		d.Fault = LastFault{TrapNo: 14, Err: 6, CR2: 0x18}
	case "suspend":
		d.Mask = Of(10, 64)
	}
	m := &memory{sp - 4096, make([]byte, 16384)}
	var s Stack
	before := f
	require.NoError(t, s.Push(m, c, &f, &d))
	require.Equal(t, sp, f.RSP)
	got, _ := m.at(sp, uint64(len(want)))
	require.Equal(t, hex.Dump(want), hex.Dump(got))
	require.Equal(t, []uint64{0x1234, uint64(d.Info.Signo), sp + offInfo, sp + offUcontext, 0}, []uint64{f.RIP, f.RDI, f.RSI, f.RDX, f.RAX})
	require.Zero(t, f.RFLAGS&(ureg.FlagDF|ureg.FlagTF))

	// And back, over the return address.
	saved := append([]byte(nil), c.image...)
	clear(c.image)
	f.RSP += 8
	f.RBX, f.R15 = 1, 2
	r, err := s.Pop(m, c, &f)
	require.NoError(t, err)
	before.OrigRAX = ureg.NoSyscall
	require.Equal(t, before, f)
	require.Equal(t, Restored{d.Mask, d.Alt}, r)
	saved[fxsaveLen] |= 3
	require.Equal(t, saved[:fxReserved], c.image[:fxReserved])
	require.Equal(t, saved[fxsaveLen:], c.image[fxsaveLen:])
}

func pushed(t require.TestingT) (*memory, *cpu, *ureg.Frame, *Stack) {
	m := &memory{0x10000, make([]byte, 16384)}
	c := newCPU(832, 7)
	f := &ureg.Frame{RSP: 0x13000, RIP: 0x4000, RFLAGS: 0x202}
	s := &Stack{}
	require.NoError(t, s.Push(m, c, f, &Context{Info: Kernel(1), Action: Action{Handler: 0x5000, Flags: linux.SA_RESTORER}}))
	f.RSP += 8
	return m, c, f, s
}

// What a program may not have, it does not get, whatever the frame says.
func TestHostileFrames(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *memory, ctx []byte) // ctx: sigcontext
		ok     bool
		check  func(t *testing.T, f *ureg.Frame, c *cpu)
	}{
		{"kernel code selector", func(m *memory, x []byte) { x[18*8] = 0x08 }, false, nil},
		{"no stack selector", func(m *memory, x []byte) { x[18*8+6], x[18*8+7] = 0, 0 }, false, nil},
		{"any stack selector, not strict", func(m *memory, x []byte) {
			x[18*8+6] = 0
		}, true, nil},
		{"privileged flags", func(m *memory, x []byte) { binary.LittleEndian.PutUint64(x[17*8:], ^uint64(0)) }, true,
			func(t *testing.T, f *ureg.Frame, _ *cpu) {
				require.Zero(t, f.RFLAGS&^(ureg.UserFlags|0x202), "%#x", f.RFLAGS)
				require.NotZero(t, f.RFLAGS&ureg.FlagIF)
			}},
		{"interrupts off", func(m *memory, x []byte) { binary.LittleEndian.PutUint64(x[17*8:], 0) }, true,
			func(t *testing.T, f *ureg.Frame, _ *cpu) { require.NotZero(t, f.RFLAGS&ureg.FlagIF) }},
		{"no vector state", func(m *memory, x []byte) { clear(x[23*8 : 24*8]) }, true,
			func(t *testing.T, _ *ureg.Frame, c *cpu) { require.Equal(t, 1, c.resets) }},
		{"vector state in the kernel", func(m *memory, x []byte) { binary.LittleEndian.PutUint64(x[23*8:], 0xffff800000000000) }, false, nil},
		{"vector state unaligned", func(m *memory, x []byte) { x[23*8] += 8 }, false, nil},
		{"vector state elsewhere", func(m *memory, x []byte) {
			from := binary.LittleEndian.Uint64(x[23*8:])
			copy(m.b[0x80:], m.b[from-m.base:][:836])
			binary.LittleEndian.PutUint64(x[23*8:], m.base+0x80)
		}, true, nil},
		{"MXCSR with reserved bits", func(m *memory, x []byte) {
			binary.LittleEndian.PutUint32(m.b[binary.LittleEndian.Uint64(x[23*8:])-m.base+24:], 0xffffffff)
		}, false, nil},
		{"XSTATE_BV with components that there are not", func(m *memory, x []byte) {
			binary.LittleEndian.PutUint64(m.b[binary.LittleEndian.Uint64(x[23*8:])-m.base+fxsaveLen:], 1<<62|3)
		}, false, nil},
		{"a size beyond everything", func(m *memory, x []byte) {
			p := m.b[binary.LittleEndian.Uint64(x[23*8:])-m.base+fxReserved:]
			binary.LittleEndian.PutUint32(p[4:], ^uint32(0))
			binary.LittleEndian.PutUint32(p[16:], ^uint32(0)-4)
		}, true, func(t *testing.T, _ *ureg.Frame, c *cpu) { require.EqualValues(t, 3, c.image[fxsaveLen]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, cpu, f, s := pushed(t)
			at := f.RSP - 8 - m.base
			c.change(m, m.b[at+offContext:])
			if c.name == "any stack selector, not strict" {
				m.b[at+offUcontext] = 3
			}
			_, err := s.Pop(m, cpu, f)
			if !c.ok {
				require.Equal(t, linux.EFAULT, err)
				return
			}
			require.NoError(t, err)
			if c.check != nil {
				c.check(t, f, cpu)
			}
		})
	}
	// No frame at all.
	m, cpu, f, s := pushed(t)
	for _, sp := range []uint64{0, 8, m.base - 8, m.base + uint64(len(m.b)) - 100, 1 << 63, ^uint64(0) - 7} {
		f.RSP = sp
		_, err := s.Pop(m, cpu, f)
		require.Equal(t, linux.EFAULT, err, "%#x", sp)
	}
}

// Any bytes whatever: an error or a frame without privilege, nothing else.
func TestAnyFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, c, f, s := pushed(t)
		at := int(f.RSP - m.base)
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			i := rapid.IntRange(0, ucontextLen+1100).Draw(t, "at")
			m.b[at+i] = rapid.Byte().Draw(t, "byte")
		}
		r, err := s.Pop(m, c, f)
		if err == nil {
			require.Zero(t, f.RFLAGS&^(ureg.UserFlags|0x202))
			require.NotZero(t, f.RFLAGS&ureg.FlagIF)
			require.Zero(t, r.Mask&Unblockable)
		}
		require.True(t, err != nil || f.OrigRAX == ureg.NoSyscall)
	})
}

func TestPushRefuses(t *testing.T) {
	m := &memory{0x10000, make([]byte, 16384)}
	c := newCPU(832, 7)
	var s Stack
	with := Context{Info: Kernel(1), Action: Action{Handler: 0x5000, Flags: linux.SA_RESTORER | linux.SA_ONSTACK}}
	for _, x := range []struct {
		name string
		sp   uint64
		d    func(d *Context)
	}{
		{"no restorer", 0x13000, func(d *Context) { d.Action.Flags = 0 }},
		{"stack ends", 0x10100, nil},
		{"stack in the kernel", 0xffff800000001000, nil},
		{"stack wraps", 64, nil},
		{"alternate stack too small", 0x13000, func(d *Context) { d.Alt = AltStack{SP: 0x11000, Size: 1024} }},
		{"alternate stack full", 0x11400, func(d *Context) { d.Alt = AltStack{SP: 0x11000, Size: 4096} }},
		{"alternate stack wraps", 0x13000, func(d *Context) { d.Alt = AltStack{SP: ^uint64(0) - 100, Size: 4096} }},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := with
			if x.d != nil {
				x.d(&d)
			}
			f := ureg.Frame{RSP: x.sp, RIP: 7}
			before := f
			require.Equal(t, linux.EFAULT, s.Push(m, c, &f, &d))
			require.Equal(t, before, f)
		})
	}
}

func TestAltStack(t *testing.T) {
	a := Disabled
	require.EqualValues(t, linux.SS_DISABLE, a.State(0x1000))
	require.Equal(t, linux.ENOMEM, a.Set(AltStack{SP: 0x1000, Size: 2047}, 0, linux.MINSIGSTKSZ))
	require.Equal(t, linux.EINVAL, a.Set(AltStack{SP: 0x1000, Size: 8192, Flags: 4}, 0, linux.MINSIGSTKSZ))
	require.NoError(t, a.Set(AltStack{SP: 0x1000, Size: 8192}, 0, linux.MINSIGSTKSZ))
	for sp, want := range map[uint64]uint32{0x1000: 0, 0x1001: linux.SS_ONSTACK, 0x3000: linux.SS_ONSTACK, 0x3001: 0, 0: 0} {
		require.Equal(t, want, a.State(sp), "%#x", sp)
	}
	require.Equal(t, linux.EPERM, a.Set(AltStack{Flags: linux.SS_DISABLE}, 0x2000, linux.MINSIGSTKSZ))
	require.NoError(t, a.Set(AltStack{SP: 5, Size: 1, Flags: linux.SS_DISABLE}, 0x4000, linux.MINSIGSTKSZ))
	require.Equal(t, Disabled, a)
	require.NoError(t, a.Set(AltStack{SP: 0x1000, Size: 8192, Flags: linux.SS_AUTODISARM}, 0, linux.MINSIGSTKSZ))
	require.Zero(t, a.State(0x2000), "on a stack that disarms itself nobody is")
}

func TestPushPopDoNotAllocate(t *testing.T) {
	m, c, f, s := pushed(t)
	d := Context{Info: Kernel(1), Action: Action{Handler: 0x5000, Flags: linux.SA_RESTORER}}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		f.RSP = 0x13000
		_ = s.Push(m, c, f, &d)
		f.RSP += 8
		_, _ = s.Pop(m, c, f)
	}))
}

func BenchmarkPushPop(b *testing.B) {
	m, c, f, s := pushed(b)
	d := Context{Info: Kernel(1), Action: Action{Handler: 0x5000, Flags: linux.SA_RESTORER}}
	for b.Loop() {
		f.RSP = 0x13000
		_ = s.Push(m, c, f, &d)
		f.RSP += 8
		_, _ = s.Pop(m, c, f)
	}
}
