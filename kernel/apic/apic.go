// Package apic drives the local APIC (SDM vol. 3A, chapter 10) in xAPIC mode. Set-up uses TamaGo's driver; the registers on
// the hot path (end of interrupt, inter-processor interrupts, timer count) are written directly, because that driver
// yields to the Go scheduler while it waits, which kernel code must not, and reads before it writes.
package apic

import (
	"github.com/usbarmory/tamago/amd64/lapic"

	"dinos/kernel/x86"
)

// PhysBase is where the registers are on every CPU (IA32_APIC_BASE after reset).
const PhysBase = 0xfee00000

// Register offsets that TamaGo's driver does not name.
const (
	regTimerInitial = 0x380
	regTimerCurrent = 0x390
	regTimerDivide  = 0x3e0
	regTaskPriority = 0x80
	divideBy1       = 0xb
	lvtMasked       = 1 << 16
)

// APIC is the local APIC of whichever CPU uses it. va is where the registers are mapped, uncached.
type APIC struct {
	va  uint64
	dev lapic.LAPIC
}

// New returns the APIC mapped at va. The page must also be mapped at its physical address for the set-up calls.
func New(va uint64) APIC { return APIC{va: va, dev: lapic.LAPIC{Base: PhysBase}} }

// Enable turns on this CPU's APIC and its timer in one-shot mode with interrupt vector timer, not running.
func (a *APIC) Enable(timer, spurious int) {
	a.write(regTaskPriority, 0)
	a.write(lapic.LAPIC_SVR, uint32(spurious))
	a.dev.Enable()
	a.write(regTimerDivide, divideBy1)
	a.dev.SetTimer(timer, lapic.TIMER_MODE_ONE_SHOT)
	a.write(regTimerInitial, 0)
}

// ID returns the 8-bit xAPIC ID of this CPU. (TamaGo's ID keeps only four bits.)
func (a *APIC) ID() uint64 { return uint64(a.read(lapic.LAPIC_ID) >> 24) }

// EOI ends the interrupt being served.
func (a *APIC) EOI() { a.write(lapic.LAPIC_EOI, 0) }

// Send raises vector on the CPU with the given APIC ID.
func (a *APIC) Send(id uint64, vector int) { a.command(id, lapic.ICR_DLV_IRQ|uint32(vector)) }

// SendNMI raises a non-maskable interrupt there.
func (a *APIC) SendNMI(id uint64) { a.command(id, lapic.ICR_DLV_NMI|1<<lapic.ICR_INIT) }

// SendInit resets the CPU with the given APIC ID to wait for a start-up interrupt.
func (a *APIC) SendInit(id uint64) { a.command(id, lapic.ICR_DLV_INIT|1<<lapic.ICR_INIT) }

// SendStartup starts that CPU in real mode at physical address page<<12.
func (a *APIC) SendStartup(id uint64, page uint8) {
	a.command(id, lapic.ICR_DLV_SIPI|1<<lapic.ICR_INIT|uint32(page))
}

func (a *APIC) command(id uint64, low uint32) {
	for a.read(lapic.LAPIC_ICRL)&(1<<lapic.ICR_DLV_STATUS) != 0 {
		x86.Pause()
	}
	a.write(lapic.LAPIC_ICRH, uint32(id)<<lapic.ID)
	a.write(lapic.LAPIC_ICRL, low)
}

// Arm starts the timer: one interrupt after ticks (at least 1). Stop with 0.
func (a *APIC) Arm(ticks uint32) { a.write(regTimerInitial, ticks) }

// Left returns the ticks until the timer fires.
func (a *APIC) Left() uint32 { return a.read(regTimerCurrent) }

func (a *APIC) read(reg uint64) uint32     { return x86.Load32(a.va + reg) }
func (a *APIC) write(reg uint64, v uint32) { x86.Store32(a.va+reg, v) }
