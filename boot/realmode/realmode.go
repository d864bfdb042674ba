// Package realmode holds the code that an application processor (AP) runs first: a STARTUP IPI (SIPI) sets it going in
// 16-bit real mode at a page below 1 MiB, and this code takes it to the kernel's 64-bit entry with the
// same control registers that boot/image's trampoline sets on the first processor.
//
// The page is written by [Install]; it serves one AP after another. For each, the kernel writes the mailbox ([SetMailbox]),
// sends INIT and SIPI, and waits until the 8 bytes at [TakenOffset] are 1 before it writes the mailbox for the next.
//
// The AP enters Mailbox.Entry with
//
//	RDI     Mailbox.Arg
//	RSP     Mailbox.Stack
//	CR3     Mailbox.CR3
//	CR0     PG WP NE ET MP PE, and nothing else
//	CR4     PAE PGE OSFXSR OSXMMEXCPT, and nothing else
//	EFER    SCE LME LMA NXE
//	RFLAGS  interrupts disabled, DF clear
//	GDT     in the page: null, 64-bit code (0x08), data (0x10); CS=0x08, DS=ES=SS=0x10, FS=GS=0
//
// and with all other registers undefined, without IDT and TSS. CPU features are not checked: those of the
// first processor are taken for granted. The page must stay as it is until the last AP has its own GDT.
//
// Preconditions on Mailbox.CR3: below 4 GiB, and it maps the page by identity, executable.
package realmode

import (
	"encoding/binary"
	"fmt"

	"dinos/boot/emit"
	"dinos/boot/record"
)

const (
	// PageSize is the size of the page.
	PageSize = 4096
	// Limit is where pages for real mode end: a SIPI names a page below 1 MiB, and the last 384 KiB are not RAM.
	Limit = 0xa_0000

	// MailboxOffset is the offset of the mailbox in the page: four little-endian 64-bit words in the order of Mailbox.
	MailboxOffset = 0xf00
	// TakenOffset is the offset of the word that the AP sets to 1 once it has read the mailbox.
	TakenOffset = MailboxOffset + 32
)

// Offsets of the words of the mailbox.
const (
	cr3Offset   = MailboxOffset
	entryOffset = MailboxOffset + 8
	stackOffset = MailboxOffset + 16
	argOffset   = MailboxOffset + 24
)

// Mailbox is what one AP is to start with; see the package documentation. CR3 is physical, Entry and Stack are virtual.
type Mailbox struct {
	CR3, Entry, Stack, Arg uint64
}

// Vector returns the SIPI vector for the page at phys.
func Vector(phys uint64) uint8 { return uint8(phys >> 12) }

// Install writes the code into page, which the kernel sees at any address and the AP at physical address phys. The
// mailbox is left zero.
func Install(page []byte, phys uint64) error {
	if len(page) != PageSize {
		return fmt.Errorf("realmode: page of %d bytes, want %d", len(page), PageSize)
	}
	if phys%PageSize != 0 || phys >= Limit || phys == 0 {
		return fmt.Errorf("realmode: physical address %#x, want a page in [%#x, %#x)", phys, PageSize, Limit)
	}
	l, err := assemble(uint32(phys))
	if err != nil {
		return err
	}
	if len(l.Code) > MailboxOffset {
		return fmt.Errorf("realmode: code of %d bytes runs into the mailbox at %#x", len(l.Code), MailboxOffset)
	}
	clear(page[copy(page, l.Code):])
	return nil
}

// SetMailbox writes m into an installed page and clears the taken word. No AP may be starting through the page
// meanwhile. The store is plain: the write that sends the SIPI orders it.
func SetMailbox(page []byte, m Mailbox) error {
	switch {
	case len(page) != PageSize:
		return fmt.Errorf("realmode: page of %d bytes, want %d", len(page), PageSize)
	case m.CR3 == 0 || m.CR3 >= 1<<32 || m.CR3%PageSize != 0:
		return fmt.Errorf("realmode: CR3 %#x, want a page table below 4 GiB: the AP loads it in 32-bit mode", m.CR3)
	case m.Entry == 0 || m.Stack == 0:
		return fmt.Errorf("realmode: entry %#x, stack %#x: want both set", m.Entry, m.Stack)
	}
	for i, v := range [...]uint64{m.CR3, m.Entry, m.Stack, m.Arg, 0} {
		binary.LittleEndian.PutUint64(page[MailboxOffset+8*i:], v)
	}
	return nil
}

// Register bits; Intel SDM volume 3 section 2.5.
const (
	cr0PE = 1<<4 | 1<<0                               // ET PE
	cr0   = 1<<31 | 1<<16 | 1<<5 | 1<<4 | 1<<1 | 1<<0 // PG WP NE ET MP PE; CD and NW, set at INIT, go
	cr4   = 1<<5 | 1<<9 | 1<<10                       // PAE OSFXSR OSXMMEXCPT
	pge   = 1 << 7                                    // CR4.PGE
	efer  = 0xc000_0080                               // MSR
	sceLM = 1<<0 | 1<<8 | 1<<11                       // EFER: SCE LME NXE

	// code32 is the selector of the 32-bit code segment that is used on the way.
	code32 = 0x18
)

// assemble returns the code for the page at org. A SIPI starts it with CS = org>>4 and IP = 0.
func assemble(org uint32) (*emit.Linked, error) {
	p := emit.New(org, 16)
	p.Op("cli", 0xfa)
	p.Op("cld", 0xfc)
	p.Op("mov ax, cs", 0x8c, 0xc8)
	p.Op("mov ds, ax", 0x8e, 0xd8)
	p.OpRef("lgdt ptr [{gdtr}]", []byte{0x66, 0x0f, 0x01, 0x16}, emit.Off16, "gdtr") // 0x66: all 32 bits of the base
	p.Op("mov eax, {cr0PE}", emit.Imm32(cr0PE, 0x66, 0xb8)...)
	p.Op("mov cr0, eax", 0x0f, 0x22, 0xc0)
	p.OpRef("jmp far {protected}, 0x18", []byte{0x66, 0xea}, emit.Addr32, "protected", code32, 0)

	p.Bits(32)
	p.Label("protected")
	p.Op("mov eax, 0x10", emit.Imm32(record.KernelData, 0xb8)...)
	p.Op("mov ds, ax", 0x8e, 0xd8)
	p.Op("mov es, ax", 0x8e, 0xc0)
	p.Op("mov ss, ax", 0x8e, 0xd0)
	p.Op("mov eax, {cr4}", emit.Imm32(cr4, 0xb8)...)
	p.Op("mov cr4, eax", 0x0f, 0x22, 0xe0)
	p.Op("mov eax, dword ptr [{cr3Word}]", emit.Imm32(org+cr3Offset, 0xa1)...)
	p.Op("mov cr3, eax", 0x0f, 0x22, 0xd8)
	p.Op("mov ecx, {efer}", emit.Imm32(efer, 0xb9)...)
	p.Op("rdmsr", 0x0f, 0x32)
	p.Op("or eax, {sceLM}", emit.Imm32(sceLM, 0x0d)...)
	p.Op("wrmsr", 0x0f, 0x30)
	p.Op("mov eax, {cr0}", emit.Imm32(cr0, 0xb8)...)
	p.Op("mov cr0, eax", 0x0f, 0x22, 0xc0)
	p.OpRef("jmp far {long}, 0x8", []byte{0xea}, emit.Addr32, "long", record.KernelCode, 0)

	p.Bits(64)
	p.Label("long")
	p.Op("xor eax, eax", 0x31, 0xc0)
	p.Op("mov fs, ax", 0x8e, 0xe0)
	p.Op("mov gs, ax", 0x8e, 0xe8)
	p.Op("mov eax, {cr4pge}", emit.Imm32(cr4|pge, 0xb8)...)
	p.Op("mov cr4, rax", 0x0f, 0x22, 0xe0) // PGE goes on after paging
	p.Op("mov ebx, {page}", emit.Imm32(org, 0xbb)...)
	p.Op("mov rdi, qword ptr [rbx+{argOffset}]", emit.Imm32(argOffset, 0x48, 0x8b, 0xbb)...)
	p.Op("mov rsp, qword ptr [rbx+{stackOffset}]", emit.Imm32(stackOffset, 0x48, 0x8b, 0xa3)...)
	p.Op("mov rax, qword ptr [rbx+{entryOffset}]", emit.Imm32(entryOffset, 0x48, 0x8b, 0x83)...)
	p.Op("mov ecx, 0x1", emit.Imm32(1, 0xb9)...)
	p.Op("xchg qword ptr [rbx+{takenOffset}], rcx", emit.Imm32(TakenOffset, 0x48, 0x87, 0x8b)...) // a barrier, too
	p.Op("jmp rax", 0xff, 0xe0)

	// Accessed bits are set, so that the CPU need not write here.
	p.Align(8)
	p.Data("gdt", emit.Imm64(0x00cf_9b_000000_ffff, emit.Imm64(0x00cf_93_000000_ffff,
		emit.Imm64(0x00af_9b_000000_ffff, emit.Imm64(0)...)...)...)...)
	p.DataRef("gdtr", []byte{4*8 - 1, 0}, "gdt")
	return p.Link()
}
