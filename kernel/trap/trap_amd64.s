#include "go_asm.h"
#include "textflag.h"

// Entry and exit. Everything here is NOSPLIT|NOFRAME: it runs before there is a stack that Go could check. SP is used
// as a plain register where noted; interrupts are off throughout, and NMI and #MC have stacks of their own, so nobody else
// looks at it.

// SWITCH makes R14 and FS those of the g in R14; clobbers CX. X15 must be zero in Go code.
#define SWITCH \
	LEAQ runtimeG_pad(R14), CX; \
	WRFSBASEQ CX; \
	PXOR X15, X15

// sysentry is LSTAR. In: RCX the return address, R11 the flags, RAX the number, RDI RSI RDX R10 R8 R9 the arguments.
TEXT ·sysentry(SB),NOSPLIT|NOFRAME,$0
	BTQ $63, CX
	JCC user
	CMPQ CPU_InKernel(GS), $0
	JNE nested
	MOVQ SP, CPU_scratch(GS)
	MOVQ CPU_Current(GS), SP // the Context of the thread
	MOVQ AX, Context_RAX(SP)
	MOVQ BX, Context_RBX(SP)
	MOVQ DX, Context_RDX(SP)
	MOVQ SI, Context_RSI(SP)
	MOVQ DI, Context_RDI(SP)
	MOVQ BP, Context_RBP(SP)
	MOVQ R8, Context_R8(SP)
	MOVQ R9, Context_R9(SP)
	MOVQ R10, Context_R10(SP)
	MOVQ R12, Context_R12(SP)
	MOVQ R13, Context_R13(SP)
	MOVQ R14, Context_R14(SP)
	MOVQ R15, Context_R15(SP)
	MOVQ CX, Context_RIP(SP)
	MOVQ R11, Context_RFLAGS(SP)
	MOVQ CPU_scratch(GS), CX
	MOVQ CX, Context_RSP(SP)
	MOVQ $const_VecSyscall, Context_Vector(SP)
	MOVQ SP, DI
	MOVQ CPU_Self(GS), BX
	MOVQ $1, CPU_InKernel(BX)
	MOVQ CPU_KernelSP(BX), SP
	MOVQ CPU_KernelG(BX), R14
	SWITCH
	BYTE $0x31; BYTE $0xed // XORL BP, BP: ends the chain of frames (vet has no notion of code that never returns)
	SUBQ $32, SP
	MOVQ BX, 0(SP)
	MOVQ DI, 8(SP)
	CALL ·onSyscall(SB)
	MOVQ 16(SP), DI
	JMP ·restore(SB)

nested:
	// Stays on the stack of the kernel code that issued it. As on Linux all registers but RAX, RCX and R11 survive:
	// runtime·nanotime1 relies on RBX and R12.
	PUSHQ CX
	PUSHQ BP
	PUSHQ BX
	PUSHQ R12
	PUSHQ R13
	PUSHQ R14
	PUSHQ R15
	PUSHQ R9
	PUSHQ R8 // from here up: the first five arguments, as an array
	PUSHQ R10
	PUSHQ DX
	PUSHQ SI
	PUSHQ DI
	MOVQ SP, DI
	SUBQ $32, SP
	MOVQ CPU_Self(GS), BX
	MOVQ BX, 0(SP)
	MOVQ AX, 8(SP)
	MOVQ DI, 16(SP)
	CALL ·onNested(SB)
	MOVQ 24(SP), AX
	ADDQ $32, SP
	POPQ DI
	POPQ SI
	POPQ DX
	POPQ R10
	POPQ R8
	POPQ R9
	POPQ R15
	POPQ R14
	POPQ R13
	POPQ R12
	POPQ BX
	POPQ BP
	POPQ CX
	JMP CX

user:
	// From ring 3. GS base is the program's, the one that SWAPGS brings this CPU's.
	SWAPGS
	MOVQ SP, CPU_scratch(GS)
	MOVQ CPU_InUser(GS), SP // the User
	CMPQ AX, $const_FastCalls
	JAE served
	CMPQ User_fast(SP)(AX*8), $0
	JEQ served
	MOVQ User_fast(SP)(AX*8), AX
	DECQ AX
	MOVQ CPU_scratch(GS), SP
	SWAPGS
	BYTE $0x48; BYTE $0x0f; BYTE $0x07 // SYSRETQ: RCX and R11 are as SYSCALL left them

served:
	MOVQ User_Regs(SP), SP
	MOVQ AX, userRegs_RAX(SP)
	MOVQ BX, userRegs_RBX(SP)
	MOVQ CX, userRegs_RCX(SP)
	MOVQ CX, userRegs_RIP(SP)
	MOVQ DX, userRegs_RDX(SP)
	MOVQ SI, userRegs_RSI(SP)
	MOVQ DI, userRegs_RDI(SP)
	MOVQ BP, userRegs_RBP(SP)
	MOVQ R8, userRegs_R8(SP)
	MOVQ R9, userRegs_R9(SP)
	MOVQ R10, userRegs_R10(SP)
	MOVQ R11, userRegs_R11(SP)
	MOVQ R11, userRegs_RFLAGS(SP)
	MOVQ R12, userRegs_R12(SP)
	MOVQ R13, userRegs_R13(SP)
	MOVQ R14, userRegs_R14(SP)
	MOVQ R15, userRegs_R15(SP)
	MOVQ SP, DI
	MOVQ CPU_scratch(GS), AX
	MOVQ AX, userRegs_RSP(DI)
	MOVQ CPU_Self(GS), BX
	SWAPGS
	RDGSBASEQ AX
	MOVQ AX, userRegs_GSBase(DI)
	WRGSBASEQ BX
	MOVQ $const_trapSyscall, userRegs_Trap(DI)
	RDFSBASEQ AX
	MOVQ AX, userRegs_FSBase(DI)
	MOVUPS X0, (userRegs_X+0)(DI)
	MOVUPS X1, (userRegs_X+16)(DI)
	MOVUPS X2, (userRegs_X+32)(DI)
	MOVUPS X3, (userRegs_X+48)(DI)
	MOVUPS X4, (userRegs_X+64)(DI)
	MOVUPS X5, (userRegs_X+80)(DI)
	MOVUPS X6, (userRegs_X+96)(DI)
	MOVUPS X7, (userRegs_X+112)(DI)
	MOVUPS X8, (userRegs_X+128)(DI)
	MOVUPS X9, (userRegs_X+144)(DI)
	MOVUPS X10, (userRegs_X+160)(DI)
	MOVUPS X11, (userRegs_X+176)(DI)
	MOVUPS X12, (userRegs_X+192)(DI)
	MOVUPS X13, (userRegs_X+208)(DI)
	MOVUPS X14, (userRegs_X+224)(DI)
	MOVUPS X15, (userRegs_X+240)(DI)
	STMXCSR userRegs_MXCSR(DI)
	CMPL userRegs_MXCSR(DI), $const_initialMXCSR // loading it is dear
	JEQ usual
	LDMXCSR ·defaultMXCSR(SB)
usual:
	MOVQ CPU_InUser(BX), DI
	MOVQ $0, CPU_InUser(BX)
	MOVQ CPU_Current(BX), AX
	MOVQ Context_ThreadFS(AX), AX
	WRFSBASEQ AX
	MOVQ User_SP(DI), SP
	PUSHQ User_BP(DI) // not MOVQ: vet takes a write of BP here for a frame pointer lost
	POPQ BP
	STI
	RET // from toUser

// func enterUser(u *User)
TEXT ·enterUser(SB),NOSPLIT,$8-8
	MOVQ u+0(FP), DI
	CALL ·toUser(SB)
	RET

// toUser goes to ring 3 with the registers of the User at RDI, and returns to its caller when ring 3 is left: through the
// SYSCALL entry above, or through fromUser. It has no frame: User.SP is where its return address is.
TEXT ·toUser(SB),NOSPLIT|NOFRAME,$0
	CLI
	MOVQ SP, User_SP(DI)
	MOVQ BP, User_BP(DI)
	// The exchange is a full barrier: who wants something of this CPU stores that first and then looks at InUser.
	MOVQ DI, AX
	XCHGQ AX, CPU_InUser(GS)
	CMPQ CPU_FlushUser(GS), $0
	JNE notready
	CMPL User_Kicked(DI), $0
	JNE notready
	CMPQ CPU_Owner(GS), DI
	JNE notready
	MOVQ User_Root(DI), AX
	CMPQ CPU_Root(GS), AX
	JNE notready
	MOVQ User_Regs(DI), AX
	MOVQ userRegs_RIP(AX), CX
	MOVQ CX, DX
	SHRQ $47, DX
	JNE notready // SYSRET and IRET would fault in ring 0
	MOVQ AX, DI
	CMPL userRegs_MXCSR(DI), $const_initialMXCSR
	JEQ mxcsr
	LDMXCSR userRegs_MXCSR(DI)
mxcsr:
	MOVUPS (userRegs_X+0)(DI), X0
	MOVUPS (userRegs_X+16)(DI), X1
	MOVUPS (userRegs_X+32)(DI), X2
	MOVUPS (userRegs_X+48)(DI), X3
	MOVUPS (userRegs_X+64)(DI), X4
	MOVUPS (userRegs_X+80)(DI), X5
	MOVUPS (userRegs_X+96)(DI), X6
	MOVUPS (userRegs_X+112)(DI), X7
	MOVUPS (userRegs_X+128)(DI), X8
	MOVUPS (userRegs_X+144)(DI), X9
	MOVUPS (userRegs_X+160)(DI), X10
	MOVUPS (userRegs_X+176)(DI), X11
	MOVUPS (userRegs_X+192)(DI), X12
	MOVUPS (userRegs_X+208)(DI), X13
	MOVUPS (userRegs_X+224)(DI), X14
	MOVUPS (userRegs_X+240)(DI), X15
	MOVQ userRegs_FSBase(DI), AX
	WRFSBASEQ AX
	MOVQ userRegs_RFLAGS(DI), R11
	ANDL $const_userFlags, R11
	ORL $0x202, R11 // IF and the bit that is always 1
	// SYSRET takes RIP and flags from RCX and R11, so it can only continue what SYSCALL left and nobody changed. It does not
	// restore RF, and a trap flag would act one instruction late.
	CMPQ userRegs_RCX(DI), CX
	JNE viaIRET
	CMPQ userRegs_R11(DI), R11
	JNE viaIRET
	TESTL $0x10100, R11
	JNE viaIRET
	MOVQ userRegs_GSBase(DI), AX
	WRGSBASEQ AX
	MOVQ userRegs_RAX(DI), AX
	MOVQ userRegs_RBX(DI), BX
	MOVQ userRegs_RDX(DI), DX
	MOVQ userRegs_RSI(DI), SI
	PUSHQ userRegs_RBP(DI)
	POPQ BP
	MOVQ userRegs_R8(DI), R8
	MOVQ userRegs_R9(DI), R9
	MOVQ userRegs_R10(DI), R10
	MOVQ userRegs_R12(DI), R12
	MOVQ userRegs_R13(DI), R13
	MOVQ userRegs_R14(DI), R14
	MOVQ userRegs_R15(DI), R15
	MOVQ userRegs_RSP(DI), SP
	MOVQ userRegs_RDI(DI), DI
	BYTE $0x48; BYTE $0x0f; BYTE $0x07 // SYSRETQ

viaIRET:
	MOVQ CPU_KernelSP(GS), BX // any stack of this CPU that is free
	SUBQ $40, BX
	MOVQ CX, 0(BX)
	MOVQ $const_SelUserCode, 8(BX)
	MOVQ R11, 16(BX)
	MOVQ userRegs_RSP(DI), AX
	MOVQ AX, 24(BX)
	MOVQ $const_SelUserData, 32(BX)
	MOVQ BX, SP
	MOVQ userRegs_GSBase(DI), AX
	WRGSBASEQ AX
	MOVQ userRegs_RAX(DI), AX
	MOVQ userRegs_RBX(DI), BX
	MOVQ userRegs_RCX(DI), CX
	MOVQ userRegs_RDX(DI), DX
	MOVQ userRegs_RSI(DI), SI
	PUSHQ userRegs_RBP(DI)
	POPQ BP
	MOVQ userRegs_R8(DI), R8
	MOVQ userRegs_R9(DI), R9
	MOVQ userRegs_R10(DI), R10
	MOVQ userRegs_R11(DI), R11
	MOVQ userRegs_R12(DI), R12
	MOVQ userRegs_R13(DI), R13
	MOVQ userRegs_R14(DI), R14
	MOVQ userRegs_R15(DI), R15
	MOVQ userRegs_RDI(DI), DI
	IRETQ

notready:
	MOVQ $0, CPU_InUser(GS)
	MOVL $1, User_notReady(DI)
	STI
	RET

// fromUser is where a thread continues that an interrupt or exception took out of ring 3: at the return address of toUser.
TEXT ·fromUser(SB),NOSPLIT|NOFRAME,$0
	RET

TEXT ·addressOfFromUser(SB),NOSPLIT,$0-8
	LEAQ ·fromUser(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// restore continues the Context at RDI. Interrupts are off, GS is this CPU's.
TEXT ·restore(SB),NOSPLIT|NOFRAME,$0
	CMPQ Context_Vector(DI), $const_VecSyscall
	JNE full
	MOVQ $0, CPU_InKernel(GS)
	MOVQ Context_ThreadFS(DI), CX
	WRFSBASEQ CX
	PXOR X15, X15
	MOVQ Context_RAX(DI), AX
	MOVQ Context_RBX(DI), BX
	MOVQ Context_RDX(DI), DX
	MOVQ Context_RSI(DI), SI
	PUSHQ Context_RBP(DI) // not MOVQ: vet takes a write of BP here for a frame pointer lost
	POPQ BP
	MOVQ Context_R8(DI), R8
	MOVQ Context_R9(DI), R9
	MOVQ Context_R10(DI), R10
	MOVQ Context_R12(DI), R12
	MOVQ Context_R13(DI), R13
	MOVQ Context_R14(DI), R14
	MOVQ Context_R15(DI), R15
	MOVQ Context_RIP(DI), CX
	MOVQ Context_RFLAGS(DI), R11
	MOVQ Context_RSP(DI), SP
	MOVQ Context_RDI(DI), DI
	STI
	JMP CX

full:
	MOVQ Context_InKernel(DI), CX
	MOVQ CX, CPU_InKernel(GS)
	MOVUPS (Context_X+0)(DI), X0
	MOVUPS (Context_X+16)(DI), X1
	MOVUPS (Context_X+32)(DI), X2
	MOVUPS (Context_X+48)(DI), X3
	MOVUPS (Context_X+64)(DI), X4
	MOVUPS (Context_X+80)(DI), X5
	MOVUPS (Context_X+96)(DI), X6
	MOVUPS (Context_X+112)(DI), X7
	MOVUPS (Context_X+128)(DI), X8
	MOVUPS (Context_X+144)(DI), X9
	MOVUPS (Context_X+160)(DI), X10
	MOVUPS (Context_X+176)(DI), X11
	MOVUPS (Context_X+192)(DI), X12
	MOVUPS (Context_X+208)(DI), X13
	MOVUPS (Context_X+224)(DI), X14
	MOVUPS (Context_X+240)(DI), X15
	LDMXCSR Context_MXCSR(DI)
	MOVQ Context_FSBase(DI), CX
	WRFSBASEQ CX
	// A ring 0 thread may have moved here from another CPU: only ring 3 has a GS base of its own to put back. And what an NMI, #DB or
	// #MC interrupted on the way in or out, which cannot move.
	TESTQ $3, Context_CS(DI)
	JNE gs
	CMPQ Context_Vector(DI), $const_VecNMI
	JEQ gs
	CMPQ Context_Vector(DI), $const_VecDebug
	JEQ gs
	CMPQ Context_Vector(DI), $const_VecMachine
	JNE ring0
gs:
	MOVQ Context_GSBase(DI), CX
	WRGSBASEQ CX
ring0:
	LEAQ Context_R15(DI), SP // from here on SP walks the Context up to the frame that IRETQ takes
	POPQ R15
	POPQ R14
	POPQ R13
	POPQ R12
	POPQ R11
	POPQ R10
	POPQ R9
	POPQ R8
	POPQ BP
	POPQ DI
	POPQ SI
	POPQ DX
	POPQ CX
	POPQ BX
	POPQ AX
	ADDQ $16, SP // Vector, ErrorCode
	IRETQ

// common continues the 256 stubs: the stack holds vector, error code and the CPU's frame, on a stack of this CPU's Area.
TEXT ·common(SB),NOSPLIT|NOFRAME,$0
	PUSHQ AX
	PUSHQ BX
	PUSHQ CX
	PUSHQ DX
	PUSHQ SI
	PUSHQ DI
	PUSHQ BP
	PUSHQ R8
	PUSHQ R9
	PUSHQ R10
	PUSHQ R11
	PUSHQ R12
	PUSHQ R13
	PUSHQ R14
	PUSHQ R15
	RDFSBASEQ AX
	PUSHQ AX
	RDGSBASEQ AX
	PUSHQ AX
	SUBQ $Context_GSBase, SP
	MOVUPS X0, (Context_X+0)(SP)
	MOVUPS X1, (Context_X+16)(SP)
	MOVUPS X2, (Context_X+32)(SP)
	MOVUPS X3, (Context_X+48)(SP)
	MOVUPS X4, (Context_X+64)(SP)
	MOVUPS X5, (Context_X+80)(SP)
	MOVUPS X6, (Context_X+96)(SP)
	MOVUPS X7, (Context_X+112)(SP)
	MOVUPS X8, (Context_X+128)(SP)
	MOVUPS X9, (Context_X+144)(SP)
	MOVUPS X10, (Context_X+160)(SP)
	MOVUPS X11, (Context_X+176)(SP)
	MOVUPS X12, (Context_X+192)(SP)
	MOVUPS X13, (Context_X+208)(SP)
	MOVUPS X14, (Context_X+224)(SP)
	MOVUPS X15, (Context_X+240)(SP)
	MOVQ $0, Context_MXCSR(SP)
	STMXCSR Context_MXCSR(SP)
	MOVQ SP, BX
	ANDQ $~(const_AreaSize-1), BX
	WRGSBASEQ BX
	MOVQ CPU_InKernel(BX), CX
	MOVQ CX, Context_InKernel(SP)
	MOVQ $1, CPU_InKernel(BX)
	MOVQ SP, CX
	ANDQ $(const_AreaSize-1), CX
	SHRQ $14, CX // granules of 16 KiB
	MOVQ CPU_gOf(BX)(CX*8), R14
	SWITCH
	// Flags as Go wants them (DF clear), and none that ring 3 could have left set (AC, NT, TF).
	PUSHQ $2
	POPFQ
	MOVQ SP, DI
	MOVQ $const_initialMXCSR, CX
	PUSHQ CX
	LDMXCSR 0(SP)
	SUBQ $24, SP
	BYTE $0x31; BYTE $0xed // XORL BP, BP: ends the chain of frames (vet has no notion of code that never returns)
	MOVQ BX, 0(SP)
	MOVQ DI, 8(SP)
	CALL ·onTrap(SB)
	MOVQ 16(SP), DI
	JMP ·restore(SB)

// EnterBoot is the first CPU's way into Go. In: RDI, RSI two arguments; R12 the address of an ABI0 Go function
// func(cpu *CPU, a, b uint64) *Context. Sets up the boot Area far enough to run kernel code, calls it, and continues what it
// returns. FS and GS base are set by MSR because it is not known yet whether the CPU has WRFSBASE.
TEXT ·EnterBoot(SB),NOSPLIT|NOFRAME,$0
	MOVQ $·areaOfBoot(SB), BX
	ADDQ $(const_AreaSize-1), BX
	ANDQ $~(const_AreaSize-1), BX
	LEAQ (5*const_granule)(BX), SP // top of the kernel stack, as in stacks
	SUBQ $64, SP
	LEAQ (CPU_g)(BX), R14
	// Just enough of the g for stack checks until PrepareArea has filled it in.
	LEAQ (2*const_granule+const_guardSize+1024)(BX), AX
	MOVQ AX, runtimeG_guard0(R14)
	MOVQ R14, runtimeG_tls(R14)
	LEAQ runtimeG_pad(R14), AX
	MOVQ AX, DX
	SHRQ $32, DX
	MOVL $0xc0000100, CX // FS base
	WRMSR
	MOVQ BX, AX
	MOVQ AX, DX
	SHRQ $32, DX
	MOVL $0xc0000101, CX // GS base
	WRMSR
	PXOR X15, X15
	BYTE $0x31; BYTE $0xed // XORL BP, BP: ends the chain of frames (vet has no notion of code that never returns)
	CLD
	SUBQ $32, SP
	MOVQ BX, 0(SP)
	MOVQ DI, 8(SP)
	MOVQ SI, 16(SP)
	CALL R12
	MOVQ 24(SP), DI
	JMP ·restore(SB)

// EnterCPU is the way into Go of every other CPU, from the start-up trampoline. In: RDI the address of its Area, which
// PrepareArea has filled in.
TEXT ·EnterCPU(SB),NOSPLIT|NOFRAME,$0
	MOVQ DI, BX
	MOVQ CPU_KernelSP(BX), SP
	MOVQ CPU_KernelG(BX), R14
	LEAQ runtimeG_pad(R14), AX
	MOVQ AX, DX
	SHRQ $32, DX
	MOVL $0xc0000100, CX
	WRMSR
	MOVQ BX, AX
	MOVQ AX, DX
	SHRQ $32, DX
	MOVL $0xc0000101, CX
	WRMSR
	PXOR X15, X15
	BYTE $0x31; BYTE $0xed // XORL BP, BP: ends the chain of frames (vet has no notion of code that never returns)
	CLD
	SUBQ $32, SP
	MOVQ BX, 0(SP)
	CALL ·onCPU(SB)
	MOVQ 8(SP), DI
	JMP ·restore(SB)

TEXT ·callOn(SB),NOSPLIT,$0-24
	MOVQ rg+0(FP), R14
	MOVQ sp+8(FP), AX
	MOVQ f+16(FP), DX // the closure: its context register and, in its first word, its code
	SWITCH
	MOVQ AX, SP
	MOVQ (DX), AX
	CALL AX
	UNDEF

TEXT ·addressOfEntry(SB),NOSPLIT,$0-8
	LEAQ ·sysentry(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·addressOfCPUEntry(SB),NOSPLIT,$0-8
	LEAQ ·EnterCPU(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·addressOfStub(SB),NOSPLIT,$0-16
	LEAQ ·stubs(SB), AX
	MOVQ v+0(FP), CX
	IMULQ $12, CX
	ADDQ CX, AX
	MOVQ AX, ret+8(FP)
	RET

// The stubs: 12 bytes each, so that stub v is at 12·v. E pads what the CPU pushes (an error code), N pushes a zero
// in its place. The bytes are PUSH imm8 / PUSH imm32; the jump to another symbol is always five bytes.
#define N(v) BYTE $0x6a; BYTE $0x00; BYTE $0x68; LONG $v; JMP ·common(SB)
#define E(v) BYTE $0x66; BYTE $0x90; BYTE $0x68; LONG $v; JMP ·common(SB)
#define N8(v) N(v); N(v+1); N(v+2); N(v+3); N(v+4); N(v+5); N(v+6); N(v+7)
#define N32(v) N8(v); N8(v+8); N8(v+16); N8(v+24)

TEXT ·stubs(SB),NOSPLIT|NOFRAME,$0
	N8(0)
	E(8)
	N(9)
	E(10)
	E(11)
	E(12)
	E(13)
	E(14)
	N(15)
	N(16)
	E(17)
	N(18)
	N(19)
	N(20)
	E(21)
	N8(22)
	N(30)
	N(31)
	N32(32)
	N32(64)
	N32(96)
	N32(128)
	N32(160)
	N32(192)
	N32(224)
