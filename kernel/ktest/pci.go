package ktest

import (
	"reflect"
	"sync"
	"time"

	"dinos/boot/info"
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
