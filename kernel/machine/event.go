package machine

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"github.com/usbarmory/tamago/soc/intel/ioapic"

	"dinos/kernel/trap"
)

// Event is a count that interrupts raise and a goroutine waits for, without holding a thread: to the runtime it is an eventfd
// in its network poller. One goroutine waits at a time.
type Event struct {
	f  *os.File
	fd uintptr
}

// NewEvent returns an Event with count 0.
func NewEvent(name string) (*Event, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, fmt.Errorf("event %s: %w", name, errno)
	}
	return &Event{os.NewFile(fd, name), fd}, nil
}

// Wait blocks until the count is not 0, sets it to 0 and returns what it was.
func (e *Event) Wait() (uint64, error) {
	var b [8]byte
	if _, err := e.f.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// Raise adds 1 to the count, as an interrupt does. It does not block.
func (e *Event) Raise() error {
	_, err := e.f.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

// Bind makes interrupt vector v raise e.
func (e *Event) Bind(v int) error {
	ok := false
	kernel.Run(func(*trap.CPU) { ok = kernel.Bind(v, uint64(e.fd)) })
	if !ok {
		return fmt.Errorf("event %s: closed", e.f.Name())
	}
	return nil
}

// Vectors of devices: those that the legacy interrupt controllers could still raise are left out.
const (
	firstDeviceVector = trap.VecIRQ + 16
	lastDeviceVector  = trap.VecTimer - 1
)

// NewVector returns an interrupt vector that no other device has.
func (m *Machine) NewVector() (int, error) {
	v := firstDeviceVector + int(m.vectors.Add(1)) - 1
	if v > lastDeviceVector {
		return 0, fmt.Errorf("all %d interrupt vectors are taken", lastDeviceVector-firstDeviceVector+1)
	}
	return v, nil
}

// RouteISA makes edge-triggered ISA interrupt irq raise e, through the I/O APIC.
func (m *Machine) RouteISA(irq uint8, e *Event) error {
	gsi := uint32(irq)
	for _, o := range m.MADT.Overrides {
		if o.IRQ == irq {
			gsi = o.GSI
		}
	}
	v, err := m.NewVector()
	if err != nil {
		return err
	}
	if err := e.Bind(v); err != nil {
		return err
	}
	for _, a := range m.MADT.IOAPICs {
		dev := ioapic.IOAPIC{Index: int(a.ID), Base: a.Addr, GSIBase: int(a.GSI)}
		if gsi >= a.GSI && gsi < a.GSI+uint32(dev.Entries()) {
			dev.EnableInterrupt(int(gsi), v)
			return nil
		}
	}
	return fmt.Errorf("no I/O APIC has an input for ISA interrupt %d (GSI %d)", irq, gsi)
}
