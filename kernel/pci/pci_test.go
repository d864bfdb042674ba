package pci

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func addresses(list []*Device) (a []string) {
	for _, d := range list {
		a = append(a, d.Address.String())
	}
	return a
}

func TestScan(t *testing.T) {
	s := newSim()
	s.add(Address{0, 0, 0}, 0x8086, 0x29c0, 0x0600)
	s.add(Address{0, 2, 0}, 0x1b36, 0x000c, 0x0604).bridge(1, 2)
	s.add(Address{0, 31, 0}, 0x8086, 0x2918, 0x0601).multi()
	s.add(Address{0, 31, 3}, 0x8086, 0x2930, 0x0c05).io(4, 64, 0x700)
	s.add(Address{0, 30, 1}, 1, 1, 1) // not there: function 0 is absent
	s.add(Address{0, 29, 0}, 1, 1, 1)
	s.add(Address{0, 29, 1}, 1, 1, 1) // not there: function 0 is a single one
	s.add(Address{1, 0, 0}, 0x1b36, 0x0001, 0x0604).bridge(2, 2)
	s.ivshmem(Address{2, 5, 0}, 4, 1<<20)
	s.add(Address{3, 0, 0}, 1, 1, 1) // nobody leads there
	list, err := Scan(s)
	require.NoError(t, err)
	require.Equal(t, []string{"00:00.0", "00:02.0", "00:1d.0", "00:1f.0", "00:1f.3", "01:00.0", "02:05.0"}, addresses(list))
	require.Equal(t, "00:1f.0 ICH9 LPC bridge (8086:2918)", list[3].String())
	require.Equal(t, BAR{Kind: IO, Addr: 0x700, Size: 64}, list[4].BARs[4])
	require.True(t, list[1].Bridge)
	require.Equal(t, uint8(1), list[1].Secondary)
	d := list[6]
	require.True(t, d.Is(0x1af4, 0x1110))
	require.Equal(t, [6]BAR{{Kind: Memory32, Size: 256}, {Kind: Memory32, Size: 4096}, {Kind: Memory64, Prefetch: true, Size: 1 << 20}}, d.BARs)
	require.Equal(t, &MSIX{Offset: 0x40, Vectors: 4, Table: Location{1, 0}, Pending: Location{1, 0x800}}, d.MSIX)
	require.Equal(t, []Capability{{capabilityMSIX, 0x40}}, d.Capabilities)
}

// TestSizing: registers hold what they held afterwards, decoding is off while they do not, and the status register is not written.
func TestSizing(t *testing.T) {
	s := newSim()
	f := s.ivshmem(Address{0, 1, 0}, 1, 64<<30).bar64(2, 64<<30, 0xc0_0000_0000).bar32(0, 256, 0xfebf_0000).io(4, 8, 0xc000)
	f.writable[1] |= 0xf900_0000 // status: a write would show
	f.val[1] |= 0xf900_0000 | commandDecode
	want := f.val
	s.stuck = func(a Address, off uint16) bool {
		require.False(t, off >= regBAR && off < 0x28 && f.val[1]&commandDecode != 0, "register at %#x written while it decodes", off)
		return false
	}
	f.writable[1] &= 0xffff
	list, err := Scan(s)
	require.NoError(t, err)
	require.Equal(t, want, f.val)
	require.Equal(t, BAR{Memory64, true, 0xc0_0000_0000, 64 << 30}, list[0].BARs[2])
	require.Equal(t, BAR{Kind: Memory32, Addr: 0xfebf_0000, Size: 256}, list[0].BARs[0])
	require.Equal(t, BAR{Kind: IO, Addr: 0xc000, Size: 8}, list[0].BARs[4])

	f = s.add(Address{0, 2, 0}, 1, 2, 3).io(0, 32, 0)
	f.writable[4] &= 0xffff // 16-bit decoder
	list, err = Scan(s)
	require.NoError(t, err)
	require.Equal(t, BAR{Kind: IO, Size: 32}, list[1].BARs[0])
}

func TestScanProblems(t *testing.T) {
	at := Address{0, 3, 0}
	for name, c := range map[string]struct {
		make func(s *sim)
		err  error
		text string
	}{
		"capability loop": {func(s *sim) {
			s.add(at, 1, 2, 3).capability(regCapabilities, 0x40, 1|0x50<<8).capability(0x40, 0x50, 2|0x40<<8)
		}, ErrCapability, "pci 00:03.0: entry at offset 0x40: capability list makes no sense"},
		"capability in the header": {func(s *sim) { s.add(at, 1, 2, 3).capability(regCapabilities, 0x3c, 1) }, ErrCapability, "offset 0x3c"},
		"MSI-X at the end":         {func(s *sim) { s.add(at, 1, 2, 3).capability(regCapabilities, 0xf8, capabilityMSIX) }, ErrMSIX, "offset 0xf8"},
		"MSI-X without a BAR": {func(s *sim) {
			s.add(at, 1, 2, 3).capability(regCapabilities, 0x40, capabilityMSIX, 1, 0)
		}, ErrMSIX, "table of 1 vectors in BAR 1, which is no memory"},
		"MSI-X in BAR 7": {func(s *sim) { s.add(at, 1, 2, 3).capability(regCapabilities, 0x40, capabilityMSIX, 7, 0) }, ErrMSIX, "BAR 7"},
		"MSI-X table too large": {func(s *sim) {
			s.add(at, 1, 2, 3).bar32(1, 4096, 0).capability(regCapabilities, 0x40, capabilityMSIX|2047<<16, 1, 1|0x800)
		}, ErrMSIX, "table of 2048 vectors at offset 0x0 of BAR 1, which has 0x1000 bytes"},
		"BAR with holes":      {func(s *sim) { f := s.add(at, 1, 2, 3); f.writable[4] = 0xf0f0_0000 }, ErrBAR, "BAR 0"},
		"BAR of no size":      {func(s *sim) { f := s.add(at, 1, 2, 3); f.val[4] = barPrefetch }, ErrBAR, "BAR 0"},
		"BAR of unknown type": {func(s *sim) { f := s.add(at, 1, 2, 3); f.val[4] = 6 }, ErrBAR, "0x6 is of an unknown type"},
		"half a 64-bit BAR":   {func(s *sim) { s.add(at, 1, 2, 3).bar32(5, 4096, barType64) }, ErrBAR, "BAR 5: 64 bits wide, but the last one"},
		"bridge to itself":    {func(s *sim) { s.add(at, 1, 2, 0x0604).bridge(0, 0) }, ErrUnnumbered, "secondary bus 0"},
		"bridge backwards":    {func(s *sim) { s.add(at, 1, 2, 0x0604).bridge(5, 3) }, ErrBridge, "secondary bus 5, last bus 3"},
		"two bridges to one bus": {func(s *sim) {
			s.add(at, 1, 2, 0x0604).bridge(1, 1)
			s.add(Address{0, 4, 0}, 1, 2, 0x0604).bridge(1, 1)
		}, ErrBridge, "pci 00:04.0: secondary bus 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim()
			c.make(s)
			s.add(Address{0, 9, 0}, 7, 7, 7)
			list, err := Scan(s)
			require.ErrorIs(t, err, c.err)
			require.ErrorContains(t, err, c.text)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "00:09.0", list[len(list)-1].Address.String(), "the others must be found all the same")
		})
	}
	s := newSim()
	for bus := range uint8(8) {
		for dev := range uint8(31) {
			for fn := range uint8(8) {
				s.add(Address{bus, dev, fn}, 1, 2, 3).multi()
			}
		}
		s.add(Address{bus, 31, 0}, 1, 2, 0x0604).bridge(bus+1, 8)
	}
	list, err := Scan(s)
	require.ErrorIs(t, err, ErrTooMany)
	require.Len(t, list, MaxFunctions)
}

// windows are those of QEMU's microvm with 40 bits of physical addresses.
var windows = Windows{Window{0xc000_0000, 0x2000_0000}, Window{0xc0_0000_0000, 0x40_0000_0000}}

func TestAssign(t *testing.T) {
	s := newSim()
	s.add(Address{0, 0, 0}, 0x1b36, 0x0008, 0x0600)
	shared := s.ivshmem(Address{0, 1, 0}, 2, 32<<30)
	s.ivshmem(Address{0, 2, 0}, 2, 1<<20)
	fixed := s.add(Address{0, 3, 0}, 1, 2, 3).bar32(0, 0x10000, 0xc000_0000).bar64(2, 1<<30, 0xc0_0000_0000).io(4, 8, 0)
	list, err := Scan(s)
	require.NoError(t, err)
	require.NoError(t, Assign(s, list, windows))
	require.Equal(t, uint64(0xc8_0000_0000), list[1].BARs[2].Addr, "the large one first, aligned, behind what is there")
	require.Equal(t, uint64(0xc0_4000_0000), list[2].BARs[2].Addr)
	require.Equal(t, uint64(0xc001_0000), list[1].BARs[1].Addr)
	require.Equal(t, uint64(0xc001_1000), list[2].BARs[1].Addr)
	require.Equal(t, uint64(0xc001_2000), list[1].BARs[0].Addr)
	require.Equal(t, uint32(0xc8), shared.val[7])
	require.Equal(t, uint32(0xc000_0000), fixed.val[4])
	require.Equal(t, uint32(barIO), fixed.val[8], "ports are left alone")
	again, err := Scan(s)
	require.NoError(t, err)
	require.Equal(t, list, again, "what was assigned is what the devices say")
	require.NoError(t, Assign(s, again, windows))
	require.Equal(t, list, again)

	require.NoError(t, list[1].Enable(s, CommandMemory|CommandMaster))
	require.Equal(t, uint32(CommandMemory|CommandMaster), shared.val[1]&commandMask)
	list[1].Disable(s, CommandMaster)
	require.Equal(t, uint32(CommandMemory), shared.val[1]&commandMask)
}

func TestAssignProblems(t *testing.T) {
	s := newSim()
	s.add(Address{0, 1, 0}, 1, 2, 0x0604).bridge(1, 1)
	s.ivshmem(Address{1, 0, 0}, 2, 1<<20)
	s.add(Address{0, 2, 0}, 1, 2, 3).bar32(0, 1<<31, 0)       // larger than the window
	s.add(Address{0, 3, 0}, 1, 2, 3).bar64(0, 1<<40, 0)       // likewise
	f := s.add(Address{0, 4, 0}, 1, 2, 3).bar32(0, 0x1000, 0) // does not hold its address
	s.add(Address{0, 5, 0}, 1, 2, 3).bar64(0, 0x1000, 0)      // well
	narrow := Windows{Memory32: windows.Memory32}             // no 64-bit window: falls back
	s.add(Address{0, 6, 0}, 1, 2, 3).bar64(0, 0x2000, 5<<40)  // assigned far away
	list, err := Scan(s)
	require.NoError(t, err)
	s.stuck = func(a Address, off uint16) bool { return a == (Address{0, 4, 0}) && off == regBAR }
	err = Assign(s, list, narrow)
	for _, want := range []string{
		"pci 01:00.0: BAR 2 of 0x100000 bytes: device behind a bridge",
		"pci 00:02.0: BAR 0 of 0x80000000 bytes: no room in the windows",
		"pci 00:03.0: BAR 0 of 0x10000000000 bytes: no room in the windows",
		"pci 00:04.0: BAR 0 of 0x1000 bytes: base address register makes no sense: it was set to 0xc0000000 and reads 0x0",
	} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorIs(t, err, ErrBehind)
	require.ErrorIs(t, err, ErrNoRoom)
	require.ErrorIs(t, err, ErrBAR)
	at := func(a Address) *Device {
		for _, d := range list {
			if d.Address == a {
				return d
			}
		}
		return nil
	}
	require.Equal(t, windows.Memory32.Base, at(Address{0, 5, 0}).BARs[0].Addr&^0xfff)
	require.Equal(t, uint64(5<<40), at(Address{0, 6, 0}).BARs[0].Addr)
	require.ErrorIs(t, at(Address{0, 4, 0}).Enable(s, CommandMemory), ErrUnassigned)
	require.Zero(t, f.val[1])
	require.NoError(t, at(Address{0, 4, 0}).Enable(s, CommandMaster))
}

// TestAssignRandom: whatever is there, what gets an address is aligned, in a window, and overlaps nothing; what does not get
// one would not fit into a free window of its own either, unless others took the room.
func TestAssignRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim()
		for i := range rapid.IntRange(1, 12).Draw(t, "devices") {
			f := s.add(Address{0, uint8(i), 0}, 1, 2, 3)
			if size := uint32(1) << rapid.IntRange(4, 30).Draw(t, "size32"); rapid.Bool().Draw(t, "fixed") {
				f.bar32(0, size, (0xc000_0000+uint32(i)<<24)&-size)
			} else {
				f.bar32(0, size, 0)
			}
			f.bar64(2, 1<<rapid.IntRange(4, 39).Draw(t, "size64"), 0)
		}
		list, err := Scan(s)
		require.NoError(t, err)
		was := map[*Device]uint64{}
		for _, d := range list {
			was[d] = d.BARs[0].Addr
		}
		err = Assign(s, list, windows)
		var all []span
		for _, d := range list {
			for i, b := range d.BARs {
				switch {
				case !b.Memory():
				case !b.Assigned():
					require.ErrorIs(t, err, ErrNoRoom)
				case i == 0 && was[d] != 0:
					require.Equal(t, was[d], b.Addr)
				default:
					require.Zero(t, b.Addr%b.Size)
					inside := func(w Window) bool { return b.Addr >= w.Base && b.Addr+b.Size <= w.Base+w.Size }
					require.True(t, inside(windows.Memory32) || b.Kind == Memory64 && inside(windows.Memory64), "%v %+v", d, b)
					for _, o := range all {
						require.False(t, b.Addr <= o.last && o.start < b.Addr+b.Size, "%v BAR %d overlaps", d, i)
					}
					all = append(all, span{b.Addr, b.Addr + b.Size - 1})
				}
			}
		}
	})
}

func TestPlaceAtTheEnds(t *testing.T) {
	at, ok := place(Window{0, 0x1000}, 0x1000, nil)
	require.False(t, ok, "address 0 means unassigned, got %#x", at)
	at, ok = place(Window{^uint64(0x1fff), 0x2000}, 0x1000, []span{{^uint64(0x1fff), ^uint64(0x1000)}})
	require.True(t, ok)
	require.Equal(t, ^uint64(0xfff), at)
	_, ok = place(Window{^uint64(0x1fff), 0x2000}, 0x1000, []span{{0x10, ^uint64(0)}})
	require.False(t, ok)
	_, ok = place(Window{}, 16, nil)
	require.False(t, ok)
	_, ok = place(Window{0x1800, 0x1000}, 1<<63, nil)
	require.False(t, ok)
}

func TestMSIX(t *testing.T) {
	s := newSim()
	f := s.ivshmem(Address{0, 1, 0}, 3, 1<<20)
	f.val[0x44/4] |= 32 // the table is not at the start of its memory
	list, err := Scan(s)
	require.NoError(t, err)
	d, all := list[0], make(memory, 8+12)
	regs := all[8:]
	regs[7] = 0xabcd_0002
	table, err := d.EnableMSIX(s, all)
	require.NoError(t, err)
	require.Equal(t, 3, table.Vectors())
	require.Equal(t, uint32(msixEnable), f.val[0x40/4]&(msixEnable|msixMask))
	require.NotZero(t, f.val[1]&CommandNoINTx)
	require.Equal(t, memory{0, 0, 0, 1, 0, 0, 0, 0xabcd_0003, 0, 0, 0, 1}, regs, "all masked, other bits kept")
	require.NoError(t, table.Set(2, Message{0x1_fee0_1000, 0x42}))
	require.Equal(t, memory{0xfee0_1000, 1, 0x42, 1}, regs[8:])
	require.NoError(t, table.Unmask(2))
	require.Zero(t, regs[11])
	require.NoError(t, table.Mask(2))
	require.Equal(t, uint32(1), regs[11])
	for _, i := range []int{-1, 3} {
		require.ErrorIs(t, table.Set(i, Message{}), ErrNoVector)
		require.ErrorIs(t, table.Mask(i), ErrNoVector)
		require.ErrorIs(t, table.Unmask(i), ErrNoVector)
	}
	d.DisableMSIX(s)
	require.Zero(t, f.val[0x40/4]&msixEnable)

	s.add(Address{0, 2, 0}, 1, 2, 3)
	list, err = Scan(s)
	require.NoError(t, err)
	_, err = list[1].EnableMSIX(s, regs)
	require.ErrorIs(t, err, ErrUnsupported)
}

func TestECAM(t *testing.T) {
	regs := make(memory, 3*ECAMPerBus/4)
	e := &ECAM{Regs: regs, First: 4, Last: 6}
	e.Write32(Address{5, 31, 7}, 0xfc, 42)
	require.Equal(t, uint32(42), regs[(1<<20|31<<15|7<<12|0xfc)/4])
	require.Equal(t, uint32(42), e.Read32(Address{5, 31, 7}, 0xfc))
	for _, bus := range []uint8{0, 3, 7, 255} {
		require.Equal(t, ^uint32(0), e.Read32(Address{bus, 0, 0}, 0))
		e.Write32(Address{bus, 0, 0}, 0, 1)
	}
}

func TestParseMCFG(t *testing.T) {
	table := func(entries ...Segment) []byte {
		b := make([]byte, mcfgHeader)
		for _, s := range entries {
			b = binary.LittleEndian.AppendUint64(b, s.Base)
			b = binary.LittleEndian.AppendUint16(b, s.Group)
			b = append(b, s.First, s.Last, 0, 0, 0, 0)
		}
		return b
	}
	got, err := ParseMCFG(table(Segment{0xb000_0000, 0, 0, 255}, Segment{0x1000_0000, 1, 16, 31}))
	require.NoError(t, err)
	require.Equal(t, []Segment{{0xb000_0000, 0, 0, 255}, {0x1100_0000, 1, 16, 31}}, got)
	require.Equal(t, uint64(256<<20), got[0].Bytes())
	require.Equal(t, uint64(16<<20), got[1].Bytes())
	for _, b := range [][]byte{nil, table(), table(Segment{Base: 1 << 20})[:59], table(Segment{}), table(Segment{Base: 4096}),
		table(Segment{Base: 1 << 20, First: 2, Last: 1}), table(make([]Segment, maxSegments+1)...), table(Segment{Base: 1 << 60})} {
		_, err := ParseMCFG(b)
		require.Error(t, err)
	}
}

func TestName(t *testing.T) {
	require.Equal(t, "ivshmem shared memory", (&Device{Vendor: 0x1af4, Product: 0x1110}).Name())
	require.Equal(t, "USB controller", (&Device{Class: 0x0c03}).Name())
	require.Equal(t, "device of class ff00", (&Device{Class: 0xff00}).Name())
}
