// Package image turns a Go ELF file, linked for the high half by the stock toolchain, into an ELF file that QEMU (or
// any loader of the PVH protocol) boots: the input with a PVH note, physical addresses, a trampoline and boot page
// tables added. Sections, symbols and DWARF stay valid, so that gdb and addr2line work on the output.
//
// # Input
//
// A static little-endian ELF64 executable for x86-64, linked with
//
//	CGO_ENABLED=0 go build -ldflags "-T -0x7fe00000 -E ENTRY"
//
// that is, with its text at [record.LinkAddress], with one executable, one read-only and one writable segment,
// none sharing a page with another; and with a symbol for the [record.Info] to be filled in.
//
// # In memory
//
//	0x100000  trampoline, its GDT and messages, at the end of the page its stack
//	0x101000  boot page tables
//	0x1ff000  the segments, at physical address = virtual address - record.ImageBase
//	PhysEnd   first byte after the bss, rounded up to a page
//
// # At entry
//
// The loader enters the trampoline in 32-bit protected mode with flat segments and EBX = physical address of
// hvm_start_info (Xen docs/misc/pvh.pandoc). The trampoline checks that EBX points at the start info's magic, that
// there is RAM up to PhysEnd and, by CPUID, that the CPU has long mode, NX, PAE, PGE, FXSR, SSE2 and SYSCALL. If not, it prints one line "dinos: boot: ..." on COM1,
// writes testproto.ExitRefused to the isa-debug-exit port and halts. Else it jumps to the input's e_entry with
//
//	RDI     physical address of hvm_start_info
//	RSI     physical address of the boot PML4, which is also in CR3
//	CR0     PG WP NE ET MP PE, and nothing else
//	CR4     PAE PGE OSFXSR OSXMMEXCPT, and nothing else
//	EFER    SCE LME LMA NXE
//	RFLAGS  interrupts disabled, DF clear
//	GDT     null, 64-bit code (0x08), data (0x10), at its physical address; CS=0x08, DS=ES=SS=0x10, FS=GS=0
//	RSP     undefined, and so are all other registers; no IDT, no TSS
//
// # Boot page tables
//
//	PML4[0]    identity map of the first 4 GiB: supervisor, writable, 2 MiB pages, no-execute but for the
//	           first 2 MiB (this trampoline, that of boot/realmode), uncached from 3 GiB on
//	PML4[256]  record.DirectMap: the same 4 GiB, all no-execute, global
//	PML4[511]  record.ImageBase: the segments in 4 KiB pages with their own permissions, global: text read and execute,
//	           rodata read, data and bss read and write; everything but text no-execute
package image
