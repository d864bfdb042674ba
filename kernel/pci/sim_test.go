package pci

import "testing"

// sim is a simulated configuration space: words with the bits that a write changes.
type sim struct {
	fns      map[Address]*simFunction
	accesses int
	stuck    func(a Address, off uint16) bool // writes that are lost
}

type simFunction struct{ val, writable [64]uint32 }

func newSim() *sim { return &sim{fns: map[Address]*simFunction{}} }

func (s *sim) Read32(a Address, off uint16) uint32 {
	s.accesses++
	f := s.fns[a]
	if off&3 != 0 || off >= configSize {
		panic("bad offset")
	}
	if f == nil {
		return 0xffff_ffff
	}
	return f.val[off/4]
}

func (s *sim) Write32(a Address, off uint16, v uint32) {
	s.accesses++
	f := s.fns[a]
	if f == nil || s.stuck != nil && s.stuck(a, off) {
		return
	}
	w := f.writable[off/4]
	f.val[off/4] = f.val[off/4]&^w | v&w
}

// add makes a function of the given class.
func (s *sim) add(a Address, vendor, product, class uint16) *simFunction {
	f := &simFunction{}
	f.val[0] = uint32(product)<<16 | uint32(vendor)
	f.writable[1] = 0x0000_0507
	f.val[2] = uint32(class) << 16
	s.fns[a] = f
	return f
}

func (f *simFunction) multi() *simFunction { f.val[3] |= multifunction; return f }

// bar32 and bar64 make memory registers, io one of ports.
func (f *simFunction) bar32(i int, size, addr uint32) *simFunction {
	f.val[4+i], f.writable[4+i] = addr, -size
	return f
}

func (f *simFunction) bar64(i int, size, addr uint64) *simFunction {
	f.val[4+i], f.writable[4+i] = uint32(addr)|barType64|barPrefetch, uint32(-size)
	f.val[5+i], f.writable[5+i] = uint32(addr>>32), uint32(-size>>32)
	return f
}

func (f *simFunction) io(i int, size, addr uint32) *simFunction {
	f.val[4+i], f.writable[4+i] = addr|barIO, -size
	return f
}

// capability puts words at off and links the list to it from register from.
func (f *simFunction) capability(from uint16, off uint8, words ...uint32) *simFunction {
	f.val[1] |= statusCapabilities
	if from == regCapabilities {
		f.val[from/4] = uint32(off)
	} else {
		f.val[from/4] = f.val[from/4]&^0xff00 | uint32(off)<<8
	}
	copy(f.val[off/4:], words)
	f.writable[off/4] = msixEnable | msixMask
	return f
}

func (f *simFunction) bridge(secondary, last uint8) *simFunction {
	f.val[3] |= headerBridge << 16
	f.val[6] = uint32(last)<<16 | uint32(secondary)<<8
	return f
}

// ivshmem adds a function like QEMU's ivshmem-doorbell, as it is after reset.
func (s *sim) ivshmem(a Address, vectors int, memory uint64) *simFunction {
	return s.add(a, 0x1af4, 0x1110, 0x0500).bar32(0, 256, 0).bar32(1, 4096, 0).bar64(2, memory, 0).
		capability(regCapabilities, 0x40, capabilityMSIX|uint32(vectors-1)<<16, 1, 1|0x800)
}

// memory is Registers in a slice.
type memory []uint32

func (m memory) Load32(off uint64) uint32     { return m[off/4] }
func (m memory) Store32(off uint64, v uint32) { m[off/4] = v }

// noisy is a Config that answers with the bytes it was given, whatever is asked, and then with all ones or zeros.
type noisy struct {
	data []byte
	at   int
	n    int
	end  uint32
}

func (c *noisy) Read32(Address, uint16) uint32 {
	c.n++
	v := c.end
	if c.at+4 <= len(c.data) {
		v = uint32(c.data[c.at]) | uint32(c.data[c.at+1])<<8 | uint32(c.data[c.at+2])<<16 | uint32(c.data[c.at+3])<<24
		c.at += 4
	}
	return v
}

func (c *noisy) Write32(Address, uint16, uint32) { c.n++ }

// FuzzScan: nothing that configuration space answers makes Scan or Assign panic or run on.
func FuzzScan(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte("\xf4\x1a\x10\x11\xff\xff\xff\xff0123456789012345678901234567890123456789012345678901234567890123"), true)
	f.Fuzz(func(t *testing.T, data []byte, ones bool) {
		c := &noisy{data: data, end: 1}
		if ones {
			c.end = 0xffff_ffff
		}
		exercise(t, c)
		if limit := 256*devicesPerBus*functionsPerDevice*2 + MaxFunctions*300; c.n > limit {
			t.Fatalf("%d accesses, more than %d", c.n, limit)
		}
	})
}

// FuzzImage is FuzzScan with a configuration space that stays as it is but for what can be written: 256 bytes of values
// and 256 of writable bits a function.
func FuzzImage(f *testing.F) {
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newSim()
		for i := 0; len(data) > 0 && i < 64; i++ {
			fn := &simFunction{}
			for j := range 128 {
				v := uint32(0)
				for k := range 4 {
					if len(data) > 0 {
						v |= uint32(data[0]) << (8 * k)
						data = data[1:]
					}
				}
				if j < 64 {
					fn.val[j] = v
				} else {
					fn.writable[j-64] = v
				}
			}
			s.fns[Address{uint8(i / 16), uint8(i / 2 % 8), uint8(i % 2)}] = fn
		}
		exercise(t, s)
	})
}

// exercise runs everything on c and checks what must hold for whatever was found.
func exercise(t *testing.T, c Config) {
	devices, _ := Scan(c)
	if len(devices) > MaxFunctions {
		t.Fatalf("%d functions", len(devices))
	}
	w := Windows{Memory32: Window{0xc000_0000, 0x1000_0000}, Memory64: Window{1 << 40, 1 << 38}}
	before := map[placement]uint64{}
	for _, d := range devices {
		for i, b := range d.BARs {
			if b.Kind != NoBAR && (b.Size == 0 || b.Size&(b.Size-1) != 0 || b.Addr&(b.Size-1) != 0) {
				t.Fatalf("%v BAR %d: %+v", d, i, b)
			}
			if b.Assigned() {
				before[placement{d, i}] = b.Addr
			}
		}
		if m := d.MSIX; m != nil {
			if err := m.check(d); err != nil {
				t.Fatal(err)
			}
		}
	}
	Assign(c, devices, w)
	for _, d := range devices {
		for i, b := range d.BARs {
			if was, ok := before[placement{d, i}]; ok && was != b.Addr {
				t.Fatalf("%v BAR %d was moved from %#x to %#x", d, i, was, b.Addr)
			}
		}
		d.Enable(c, CommandMemory|CommandMaster)
		if d.MSIX != nil {
			if _, err := d.EnableMSIX(c, sink{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// sink is Registers that hold nothing, of any size.
type sink struct{}

func (sink) Load32(uint64) uint32   { return 0 }
func (sink) Store32(uint64, uint32) {}
