#include "textflag.h"

// entry64 is entered by the trampoline. It has no stack and calls nothing; R15 holds the letter of the check
// under way, which is printed when that check fails.
TEXT entry64(SB),NOSPLIT|NOFRAME,$0
	// a: interrupts off, direction flag clear. A scratch stack in the bss is enough to read the flags.
	MOVQ $'a', R15
	LEAQ ·Zeros+4096(SB), SP
	PUSHFQ
	POPQ AX
	TESTQ $0x600, AX
	JNZ  fail
	MOVQ $0, ·Zeros+4088(SB)

	// b: RDI is the start info, seen through the direct map.
	MOVQ $'b', R15
	MOVQ $0xffff800000000000, R14
	CMPL (R14)(DI*1), $0x336ec578
	JNE  fail

	// c: RSI, CR3 and the record agree on the page tables.
	MOVQ $'c', R15
	MOVQ CR3, AX
	CMPQ AX, SI
	JNE  fail
	CMPQ AX, ·Record+32(SB)
	JNE  fail

	// d: CR0 has PG, WP, MP, PE and neither EM nor TS.
	MOVQ $'d', R15
	MOVQ CR0, AX
	ANDL $0x8001000f, AX
	CMPL AX, $0x80010003
	JNE  fail

	// e: CR4 has PAE, PGE, OSFXSR, OSXMMEXCPT.
	MOVQ $'e', R15
	MOVQ CR4, AX
	ANDL $0x6a0, AX
	CMPL AX, $0x6a0
	JNE  fail

	// f: EFER has SCE, LME, LMA, NXE.
	MOVQ $'f', R15
	MOVL $0xc0000080, CX
	RDMSR
	CMPL AX, $0xd01
	JNE  fail

	// g: the bss is zero.
	MOVQ $'g', R15
	LEAQ ·Zeros(SB), BX
	MOVQ $(8<<10), CX

zero:
	CMPQ (BX), $0
	JNE  fail
	ADDQ $8, BX
	DECQ CX
	JNZ  zero

	// h: the record was written: the image ends above where it starts, and holds this code.
	MOVQ $'h', R15
	MOVQ ·Record+16(SB), AX
	CMPQ AX, $0x100000
	JNE  fail
	CMPQ AX, ·Record+24(SB)
	JAE  fail
	LEAQ entry64(SB), AX
	CMPQ AX, ·Record+40(SB)
	JB   fail
	CMPQ AX, ·Record+48(SB)
	JAE  fail

	// i: the direct map shows the same data as the image's own addresses.
	MOVQ $'i', R15
	MOVQ $0x80000000, CX
	LEAQ ·Record(SB), AX
	ADDQ CX, AX                 // physical: the address minus 0xffffffff80000000
	MOVQ (R14)(AX*1), BX
	CMPQ BX, ·Record(SB)
	JNE  fail

	// j: the identity map reaches the LAPIC's version register, which is never 0 nor all ones.
	MOVQ $'j', R15
	MOVL $0xfee00030, AX
	MOVL (AX), BX
	CMPL BX, $0
	JE   fail
	CMPL BX, $-1
	JE   fail

	MOVL $0x3f8, DX
	MOVL $'o', AX
	OUTB
	MOVL $'k', AX
	OUTB
	MOVL $'\n', AX
	OUTB
	MOVL $0x10, AX
	JMP  exit

fail:
	MOVL $0x3f8, DX
	MOVL $'F', AX
	OUTB
	MOVQ R15, AX
	OUTB
	MOVL $'\n', AX
	OUTB
	MOVL $0x11, AX

exit:
	MOVL $0xf4, DX
	OUTB

stop:
	HLT
	JMP  stop
