#include "textflag.h"

#define PUT(c) \
	MOVL $0x3f8, DX \
	MOVL c, AX \
	OUTB

TEXT entry64(SB),NOSPLIT|NOFRAME,$0
	MOVQ ·Record(SB), AX       // keeps the record in the image
	LEAQ apEntry(SB), AX       // and the code that only the other vCPU reaches
	LEAQ ·Stack+8192(SB), SP
	XORL BP, BP
	PUT($'h')
	PUT($'e')
	PUT($'l')
	PUT($'l')
	PUT($'o')
	PUT($'\r')
	PUT($'\n')

	// The command line, through the direct map; its first letter stays in BX.
	MOVQ $0xffff800000000000, R14
	MOVQ 24(R14)(DI*1), SI
	ADDQ R14, SI
	MOVBLZX (SI), BX

text:
	MOVBLZX (SI), CX
	TESTL CX, CX
	JZ   newline
	PUT(CX)
	INCQ SI
	JMP  text

newline:
	CMPL BX, $0
	JE   act
	PUT($'\r')
	PUT($'\n')

act:
	MOVL $0x10, AX
	CMPL BX, $'p'
	JE   exit
	MOVL $0x11, AX
	CMPL BX, $'f'
	JE   exit
	MOVL $0x12, AX
	CMPL BX, $'c'
	JE   exit
	MOVL $0x13, AX
	CMPL BX, $'r'
	JE   exit
	MOVL $0x55, AX
	CMPL BX, $'o'
	JE   exit
	CMPL BX, $'t'
	JE   triple
	CMPL BX, $'e'
	JE   echo
	CMPL BX, $'h'
	JE   halt
	CMPL BX, $'a'
	JE   ap
	CALL outer(SB)
	HLT

	// Without an IDT any exception is a triple fault.
triple:
	UD2

	// Prints what it reads, up to and with a dot.
echo:
	MOVL $0x3fd, DX
	INB
	TESTB $1, AX
	JZ   echo
	MOVL $0x3f8, DX
	INB
	OUTB
	CMPB AX, $'.'
	JNE  echo
	MOVL $0x10, AX
	JMP  exit

	// Starts the other vCPUs at the page 0x70000, where the test has placed the code of boot/realmode:
	// INIT, then STARTUP, to all but this one, through the ICR of the xAPIC in the identity map.
ap:
	MOVL $0xfee00300, SI
	MOVL $0x000c4500, (SI)
	MOVL $10000000, CX

initWait:
	DECL CX
	JNZ  initWait
	MOVL $0x000c4670, (SI)

apWait:
	HLT
	JMP  apWait

halt:
	CALL halted(SB)
	HLT

exit:
	MOVL $0xf4, DX
	OUTB
	HLT

// apEntry is where boot/realmode takes the other vCPU. It checks what that promises; R15 holds the letter of the check.
TEXT apEntry(SB),NOSPLIT|NOFRAME,$0
	MOVL $'a', R15             // argument and stack, as TestStartAP sets them
	MOVQ $0x1122334455667788, AX
	CMPQ DI, AX
	JNE  bad
	LEAQ ·Stack+4096(SB), AX
	CMPQ SP, AX
	JNE  bad
	MOVL $'b', R15             // interrupts off, direction flag clear
	PUSHFQ
	POPQ AX
	TESTQ $0x600, AX
	JNZ  bad
	MOVL $'c', R15
	MOVQ CR3, AX
	CMPQ AX, ·Record+32(SB)
	JNE  bad
	MOVL $'d', R15
	MOVQ CR0, AX
	CMPL AX, $0x80010033
	JNE  bad
	MOVL $'e', R15
	MOVQ CR4, AX
	CMPL AX, $0x6a0
	JNE  bad
	MOVL $'f', R15
	MOVL $0xc0000080, CX
	RDMSR
	CMPL AX, $0xd01
	JNE  bad
	MOVL $'g', R15             // the mailbox is taken
	MOVL $0x70f20, AX
	CMPQ (AX), $1
	JNE  bad
	MOVL $'h', R15             // all segment registers load again from the GDT that is in place
	MOVL $0x10, AX
	MOVW AX, DS
	MOVW AX, SS
	MOVL $'i', R15
	MOVL $0xfee00020, AX       // this is another vCPU
	MOVL (AX), AX
	TESTL AX, AX
	JE   bad
	PUT($'u')
	PUT($'p')
	PUT($'\n')
	MOVL $0x10, AX
	MOVL $0xf4, DX
	OUTB

bad:
	PUT($'F')
	PUT(R15)
	MOVL $0x11, AX
	MOVL $0xf4, DX
	OUTB
	HLT

TEXT halted(SB),NOSPLIT|NOFRAME,$0
	CLI

sleep:
	HLT
	JMP sleep

// The frames make the assembler keep frame pointers.
TEXT outer(SB),NOSPLIT,$8
	CALL inner(SB)
	RET

TEXT inner(SB),NOSPLIT,$8
	CALL spin(SB)
	RET

TEXT spin(SB),NOSPLIT,$8
	PUT($'i')
	PUT($'n')
	PUT($'\n')

again:
	PAUSE
	JMP again
