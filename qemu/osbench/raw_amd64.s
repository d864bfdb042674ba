#include "textflag.h"

// handler counts.
TEXT ·handler(SB),NOSPLIT|NOFRAME,$0
	LOCK
	INCQ ·count(SB)
	RET

TEXT ·restorer(SB),NOSPLIT|NOFRAME,$0
	MOVL $15, AX // rt_sigreturn
	SYSCALL
	INT $3

TEXT ·handlerAddress(SB),NOSPLIT,$0-8
	LEAQ ·handler(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·restorerAddress(SB),NOSPLIT,$0-8
	LEAQ ·restorer(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func rawFork(path *byte) uintptr
TEXT ·rawFork(SB),NOSPLIT,$32-16
	MOVQ path+0(FP), BX
	MOVL $57, AX // fork
	SYSCALL
	TESTQ AX, AX
	JNE parent
	TESTQ BX, BX
	JEQ exit
	MOVQ BX, DI
	MOVQ BX, 8(SP)
	MOVQ $0, 16(SP)
	LEAQ 8(SP), SI // argv
	LEAQ 16(SP), DX // envp: empty
	MOVL $59, AX // execve
	SYSCALL
	MOVL $1, DI
	MOVL $60, AX
	SYSCALL
exit:
	XORL DI, DI
	MOVL $60, AX // exit
	SYSCALL
parent:
	MOVQ AX, ret+8(FP)
	RET

// func rawThread(top uintptr, alive *int32) uintptr
TEXT ·rawThread(SB),NOSPLIT,$0-24
	MOVQ top+0(FP), SI
	MOVQ alive+8(FP), DX // PARENT_SETTID
	MOVQ DX, R10         // CHILD_CLEARTID
	XORL R8, R8
	// VM FS FILES SIGHAND THREAD SYSVSEM PARENT_SETTID CHILD_CLEARTID
	MOVL $0x350f00, DI
	MOVL $56, AX // clone
	SYSCALL
	TESTQ AX, AX
	JNE made
	XORL DI, DI
	MOVL $60, AX // exit
	SYSCALL
made:
	MOVQ AX, ret+16(FP)
	RET
