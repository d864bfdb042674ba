#include "textflag.h"

TEXT entry64(SB),NOSPLIT|NOFRAME,$0
	MOVQ ·Record(SB), AX       // keeps the record in the image
	LEAQ ·Stack+8192(SB), SP
	XORL BP, BP

	// The command line, through the direct map; its first letter stays in BX.
	MOVQ $0xffff800000000000, R14
	MOVQ 24(R14)(DI*1), SI
	ADDQ R14, SI
	MOVBLZX (SI), BX
	MOVQ ·Script(SB), SI
	MOVQ ·Script+8(SB), CX
	CMPL BX, $'h'
	JNE  print
	MOVQ ·Hang(SB), SI
	MOVQ ·Hang+8(SB), CX

print:
	MOVL $0x3f8, DX
	MOVBLZX (SI), AX
	OUTB
	INCQ SI
	DECQ CX
	JNZ  print
	CMPL BX, $'h'
	JE   hang
	MOVL $0xf4, DX
	MOVL $0x11, AX
	OUTB

hang:
	PAUSE
	JMP  hang
