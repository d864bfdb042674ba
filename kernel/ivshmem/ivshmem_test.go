package ivshmem

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/kernel/pci"
)

// machine is a Bus with one device, whose parts can be made to fail.
type machine struct {
	config  [64]uint32
	regs    map[int]registers
	memory  []byte
	failing string
	routed  int
}

type registers map[uint64]uint32

func (r registers) Load32(off uint64) uint32     { return r[off] }
func (r registers) Store32(off uint64, v uint32) { r[off] = v }

type event int

func (event) Wait() (uint64, error) { return 1, nil }

var errTest = errors.New("deliberate")

func (m *machine) fail(what string) error {
	if m.failing == what {
		return errTest
	}
	return nil
}

func (m *machine) Config() pci.Config                            { return m }
func (m *machine) Read32(_ pci.Address, off uint16) uint32       { return m.config[off/4] }
func (m *machine) Write32(_ pci.Address, off uint16, v uint32)   { m.config[off/4] = v }
func (m *machine) Memory(_ *pci.Device, bar int) ([]byte, error) { return m.memory, m.fail("memory") }
func (m *machine) Registers(_ *pci.Device, bar int) (pci.Registers, error) {
	return m.regs[bar], m.fail(fmt.Sprintf("registers %d", bar))
}

func (m *machine) Interrupt(t *pci.Table, i int) (pci.Event, error) {
	m.routed++
	return event(i), errors.Join(m.fail(fmt.Sprintf("interrupt %d", i)), t.Set(i, pci.Message{Data: uint32(i)}), t.Unmask(i))
}

const (
	capability = 0x40
	enabled    = 1 << 31
)

// doorbell and plain are what QEMU makes.
func doorbell(vectors int) (*machine, *pci.Device) {
	m, d := plain()
	d.MSIX = &pci.MSIX{Offset: capability, Vectors: vectors, Table: pci.Location{BAR: 1}, Pending: pci.Location{BAR: 1, Offset: 0x800}}
	return m, d
}

func plain() (*machine, *pci.Device) {
	m := &machine{memory: make([]byte, 4096), regs: map[int]registers{0: {regID: 5}, 1: {}}}
	d := &pci.Device{Vendor: Vendor, Product: Product, Revision: 1}
	d.BARs[0] = pci.BAR{Kind: pci.Memory32, Addr: 0xfebf0000, Size: 256}
	d.BARs[1] = pci.BAR{Kind: pci.Memory32, Addr: 0xfebf1000, Size: 4096}
	d.BARs[2] = pci.BAR{Kind: pci.Memory64, Addr: 0xc000000000, Size: 4096}
	return m, d
}

func TestDoorbell(t *testing.T) {
	m, d := doorbell(3)
	s, err := Open(m, d, 2)
	require.NoError(t, err)
	require.True(t, s.Doorbells())
	require.Equal(t, 5, s.ID())
	require.Equal(t, &m.memory[0], &s.Memory()[0])
	require.Equal(t, uint32(pci.CommandMemory|pci.CommandMaster|pci.CommandNoINTx), m.config[1])
	require.Equal(t, uint32(enabled), m.config[capability/4])
	require.Equal(t, registers{8: 0, 12: 0, 16: 0, 20: 0, 24: 1, 28: 0, 0: 0, 4: 0, 44: 1}, m.regs[1], "the third vector stays masked")
	for i := range 2 {
		e, err := s.Event(i)
		require.NoError(t, err)
		require.Equal(t, event(i), e)
	}
	for _, i := range []int{-1, 2} {
		_, err = s.Event(i)
		require.ErrorIs(t, err, ErrVector)
	}
	require.NoError(t, s.Ring(0xabcd, 2))
	require.Equal(t, uint32(0xabcd_0002), m.regs[0][regDoorbell])
	for _, p := range []int{-1, 1 << 16} {
		require.ErrorIs(t, s.Ring(p, 0), ErrPeer)
	}
	for _, v := range []int{-1, 3} {
		require.ErrorIs(t, s.Ring(0, v), ErrVector)
	}
	require.Equal(t, uint32(0xabcd_0002), m.regs[0][regDoorbell])
}

func TestPlain(t *testing.T) {
	m, d := plain()
	s, err := Open(m, d, 0)
	require.NoError(t, err)
	require.False(t, s.Doorbells())
	require.Zero(t, s.ID())
	require.Len(t, s.Memory(), 4096)
	require.ErrorIs(t, s.Ring(0, 0), ErrNoDoorbell)
	_, err = s.Event(0)
	require.ErrorIs(t, err, ErrVector)
	_, err = Open(m, d, 1)
	require.ErrorIs(t, err, ErrNoDoorbell)
}

func TestOpenFails(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(m *machine, d *pci.Device)
		vectors int
		err     error
		text    string
	}{
		"another device": {func(_ *machine, d *pci.Device) { d.Product++ }, 0, ErrDevice, "want 1af4:1110"},
		"old revision":   {func(_ *machine, d *pci.Device) { d.Revision = 0 }, 0, ErrDevice, "revision 0, want 1"},
		"no registers":   {func(_ *machine, d *pci.Device) { d.BARs[0].Kind = pci.IO }, 0, ErrDevice, "BAR 0 is no memory"},
		"few registers":  {func(_ *machine, d *pci.Device) { d.BARs[0].Size = 8 }, 0, ErrDevice, "BAR 0 is no memory of 16"},
		"no memory":      {func(_ *machine, d *pci.Device) { d.BARs[2] = pci.BAR{} }, 0, ErrDevice, "BAR 2 is no memory"},
		"no address":     {func(_ *machine, d *pci.Device) { d.BARs[2].Addr = 0 }, 0, pci.ErrUnassigned, "BAR 2"},
		"few vectors":    {nil, 3, ErrDevice, "it has 2 vectors, want 3"},
		"negative":       {nil, -1, ErrDevice, "want -1"},
		"no ID":          {func(m *machine, _ *pci.Device) { m.regs[0][regID] = 0xffff_ffff }, 1, ErrDevice, "its ID is 0xffffffff"},
		"mapping 0":      {func(m *machine, _ *pci.Device) { m.failing = "registers 0" }, 1, errTest, ""},
		"mapping 1":      {func(m *machine, _ *pci.Device) { m.failing = "registers 1" }, 1, errTest, ""},
		"mapping 2":      {func(m *machine, _ *pci.Device) { m.failing = "memory" }, 1, errTest, ""},
		"interrupt":      {func(m *machine, _ *pci.Device) { m.failing = "interrupt 1" }, 2, errTest, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, d := doorbell(2)
			if c.change != nil {
				c.change(m, d)
			}
			_, err := Open(m, d, c.vectors)
			require.ErrorIs(t, err, c.err)
			require.ErrorContains(t, err, c.text)
			require.Zero(t, m.config[capability/4]&enabled, "MSI-X is on")
			require.Zero(t, m.config[1]&pci.CommandMaster)
		})
	}
}
