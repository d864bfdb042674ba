#include "textflag.h"

#define PUT(c) \
	MOVL $0x3f8, DX \
	MOVL c, AX \
	OUTB

TEXT entry64(SB),NOSPLIT|NOFRAME,$0
	MOVQ ·Record(SB), AX       // keeps the record in the image
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

halt:
	CALL halted(SB)
	HLT

exit:
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
again:
	PAUSE
	JMP again
