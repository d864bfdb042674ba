package ktest

import (
	"encoding/binary"
	"reflect"
	"strings"
	"sync"
	"time"

	"dinos/boot/info"
	"dinos/kernel/paging"
	"dinos/kernel/pci"
	"dinos/kernel/testproto"
)

// pci: the bus starts with a host bridge, all memory of devices has an address of its own, and configuration space reads the
// same again, also by many goroutines at once.
func (s *suite) pci(t *testproto.T) {
	p := s.m.PCI()
	if p == nil {
		t.Skipf("the machine has no PCI bus")
	}
	if err := p.Problem(); err != nil {
		t.Errorf("%v", err)
	}
	list := s.m.Devices()
	if len(list) == 0 || list[0].Class != 0x0600 || list[0].Address != (pci.Address{}) {
		t.Fatalf("no host bridge at 00:00.0; devices: %v", list)
	}
	type span struct{ start, end uint64 }
	var used []span
	for _, r := range s.m.Boot.Memory {
		if r.Kind == info.RAM {
			used = append(used, span{r.Start, r.End})
		}
	}
	for _, d := range list {
		for i, b := range d.BARs {
			if !b.Memory() {
				continue
			}
			if !b.Assigned() {
				t.Errorf("%v: BAR %d has no address", d, i)
			}
			for _, u := range used {
				if b.Addr < u.end && u.start < b.Addr+b.Size {
					t.Errorf("%v: BAR %d at [%#x, +%#x) overlaps [%#x, %#x)", d, i, b.Addr, b.Size, u.start, u.end)
				}
			}
			used = append(used, span{b.Addr, b.Addr + b.Size})
		}
	}
	start := time.Now()
	again, err := pci.Scan(p.Config())
	took := time.Since(start)
	if err != nil || !reflect.DeepEqual(list, again) {
		t.Errorf("a second scan found %v, %v; the first %v", again, err, list)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				d := list[(g+i)%len(list)]
				if id := p.Config().Read32(d.Address, 0); id != uint32(d.Product)<<16|uint32(d.Vendor) {
					t.Errorf("%v: ID reads %#x", d, id)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d devices, scanned in %v", len(list), took.Round(time.Microsecond))
}

// deviceMemory: memory of devices can be mapped, twice too, but neither RAM nor what the direct map does not reach.
func (s *suite) deviceMemory(t *testproto.T) {
	ram := s.m.Boot.Memory[0]
	for _, r := range s.m.Boot.Memory {
		if r.Kind == info.RAM {
			ram = r
		}
	}
	for _, c := range []struct {
		what   string
		pa, n  uint64
		reason string
	}{
		{"RAM", ram.Start, 4096, "RAM is at"},
		{"the end of RAM", ram.End - 1, 4096, "RAM is at"},
		{"nothing", 0xfec0_0000, 0, "want 1 byte or more"},
		{"what is far away", 1 << 51, 4096, "the end of the direct map"},
		{"what wraps round", ^uint64(0) - 10, 4096, "the end of the direct map"},
		{"everything", 0xfec0_0000, ^uint64(0), "the end of the direct map"},
	} {
		if b, err := s.m.MapDevice(c.pa, c.n, paging.Uncached); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("mapping %s at %#x: %d bytes, %v; want an error with %q", c.what, c.pa, len(b), err, c.reason)
		}
	}
	// The local APIC: its version register is not 0. It must be read in one piece.
	for range 2 {
		b, err := s.m.MapDevice(0xfee0_0000, 4096, paging.Uncached)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if v := binary.LittleEndian.Uint32(b[0x30:]); v == 0 || v == 0xffff_ffff {
			t.Errorf("the local APIC has version %#x", v)
		}
	}
	// Above 4 GiB, at an odd place, where no device is: that it is mapped is all there is to see.
	const far = 0x20_0000_1800
	for _, attr := range []paging.Attr{0, paging.Uncached} {
		b, err := s.m.MapDevice(far, 0x2000, attr)
		if err != nil || len(b) != 0x2000 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		sum := byte(0)
		for _, v := range b {
			sum |= v
		}
	}
	if _, err := s.m.MapDevice(far, 1<<20, 0); err == nil {
		t.Errorf("a range of which a part was mapped could be mapped")
	}
}
