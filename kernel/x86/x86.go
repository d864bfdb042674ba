// Package x86 is the one place where the kernels use privileged or special instructions, one function each, so that
// privilege can be found with grep. The functions do what the instruction does and nothing else; they allocate
// nothing, take no lock and may be called in any context. References: Intel SDM vol. 2 and 3A.
package x86

// Out8 writes v to I/O port p (OUT).
func Out8(p uint16, v uint8)

// Out16 writes v to I/O port p (OUT).
func Out16(p uint16, v uint16)

// Out32 writes v to I/O port p (OUT).
func Out32(p uint16, v uint32)

// In8 reads I/O port p (IN).
func In8(p uint16) uint8

// In16 reads I/O port p (IN).
func In16(p uint16) uint16

// In32 reads I/O port p (IN).
func In32(p uint16) uint32

// ReadMSR returns model specific register n (RDMSR). An unknown n is a #GP.
func ReadMSR(n uint32) uint64

// WriteMSR sets model specific register n (WRMSR). An unknown n or reserved bit is a #GP.
func WriteMSR(n uint32, v uint64)

// CPUID returns the leaf's four registers.
func CPUID(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)

// TSC returns the time stamp counter (RDTSC, not serialising).
func TSC() uint64

// ReadCR0 returns CR0.
func ReadCR0() uint64

// ReadCR2 returns CR2, the address of the last page fault.
func ReadCR2() uint64

// ReadCR3 returns CR3, the physical address of the PML4 and its flags.
func ReadCR3() uint64

// ReadCR4 returns CR4.
func ReadCR4() uint64

// WriteCR0 sets CR0.
func WriteCR0(v uint64)

// WriteCR3 sets CR3, which also drops all translations that are not global.
func WriteCR3(v uint64)

// WriteCR4 sets CR4. Changing PGE drops all translations.
func WriteCR4(v uint64)

// InvalidatePage drops this CPU's translation of the page at va (INVLPG), global or not.
func InvalidatePage(va uint64)

// Pause is the spin-loop hint (PAUSE).
func Pause()

// DisableInterrupts clears IF (CLI).
func DisableInterrupts()

// EnableInterrupts sets IF (STI); it takes effect after the next instruction.
func EnableInterrupts()

// HaltUntilInterrupt is STI; HLT; CLI. The one-instruction shadow of STI makes it impossible that an interrupt that
// was pending before the call is taken before HLT: no wake-up is lost if the caller checked its condition with
// interrupts off.
func HaltUntilInterrupt()

// Halt stops this CPU for good (CLI; HLT in a loop).
func Halt()

// RDRAND returns a random number and whether the instruction delivered one (SDM vol. 1, 7.3.17).
func RDRAND() (v uint64, ok bool)

// RDSEED returns a seed and whether the instruction delivered one.
func RDSEED() (v uint64, ok bool)

// ReadGSBase returns the GS base (RDGSBASE).
func ReadGSBase() uint64

// WriteGSBase sets the GS base (WRGSBASE).
func WriteGSBase(v uint64)

// ReadFSBase returns the FS base (RDFSBASE).
func ReadFSBase() uint64

// WriteXCR0 sets extended control register 0 (XSETBV), the vector state the CPU may use.
func WriteXCR0(v uint64)

// XSave stores the components of mask that XCR0 has to the image at p, 64-byte aligned (XSAVE).
func XSave(p, mask uint64)

// XRestore loads the components of mask from the image at p (XRSTOR). A bad header is a #GP.
func XRestore(p, mask uint64)

// FXSave stores x87, MMX and XMM state to the 512 bytes at p, 16-byte aligned (FXSAVE64).
func FXSave(p uint64)

// FXRestore loads it (FXRSTOR64). Reserved bits of MXCSR are a #GP.
func FXRestore(p uint64)

// LoadGDT loads the GDT register from the 10-byte pseudo-descriptor at p (LGDT) and reloads CS with selector cs and
// the data segment registers DS, ES, SS with ds. FS and GS selectors, and so their bases, are left alone.
func LoadGDT(p uint64, cs, ds uint16)

// LoadIDT loads the IDT register from the 10-byte pseudo-descriptor at p (LIDT).
func LoadIDT(p uint64)

// LoadTR loads the task register (LTR).
func LoadTR(sel uint16)

// Load32 reads a device register through its virtual address.
func Load32(va uint64) uint32

// Store32 writes a device register through its virtual address.
func Store32(va uint64, v uint32)

// Breakpoint is INT3.
func Breakpoint()

// Undefined is UD2.
func Undefined()

// CR and EFER bits and the MSRs the kernels use, named as in the SDM.
const (
	CR0WP = 1 << 16

	CR4TSD        = 1 << 2
	CR4PGE        = 1 << 7
	CR4OSFXSR     = 1 << 9
	CR4OSXMMEXCPT = 1 << 10
	CR4UMIP       = 1 << 11
	CR4FSGSBASE   = 1 << 16
	CR4OSXSAVE    = 1 << 18
	CR4SMEP       = 1 << 20
	CR4SMAP       = 1 << 21

	MSRAPICBase = 0x1b
	MSREFER     = 0xc0000080
	MSRSTAR     = 0xc0000081
	MSRLSTAR    = 0xc0000082
	MSRCSTAR    = 0xc0000083
	MSRSFMASK   = 0xc0000084
	MSRFSBase   = 0xc0000100
	MSRGSBase   = 0xc0000101
	MSRKGSBase  = 0xc0000102
	MSRTSCAux   = 0xc0000103

	FlagTF = 1 << 8
	FlagIF = 1 << 9
	FlagDF = 1 << 10
	FlagAC = 1 << 18
	FlagNT = 1 << 14
)
