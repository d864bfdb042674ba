#include "go_asm.h"
#include "textflag.h"

// vdsoClockGettime is clock_gettime(2) for the kernel's own runtime, which calls it as it would call the vDSO of Linux: by the
// C calling convention, RDI the clock, RSI the timespec, on a stack with no room to speak of. It saves the
// system call. The arithmetic is that of package clock.
TEXT ·vdsoClockGettime(SB),NOSPLIT|NOFRAME,$0
	CMPQ DI, $1 // CLOCK_REALTIME 0, CLOCK_MONOTONIC 1
	JHI slow
	RDTSC
	SHLQ $32, DX
	ORQ DX, AX
	SUBQ ·vdso+vdsoData_base(SB), AX
	JCC after
	XORL AX, AX // another CPU's counter may be behind
after:
	MULQ ·vdso+vdsoData_mult(SB)
	SHLQ $32, DX
	SHRQ $32, AX
	ORQ DX, AX
	TESTQ DI, DI
	JNE monotonic
	ADDQ ·vdso+vdsoData_wall(SB), AX
monotonic:
	// Seconds: n/10⁹ = (n/2⁹ · ⌈2⁶⁴⁺¹¹/(10⁹/2⁹)⌉) / 2⁷⁵ for all n below 2⁶³.
	MOVQ AX, CX
	SHRQ $9, AX
	MOVQ $0x44b82fa09b5a53, R8
	MULQ R8
	SHRQ $11, DX
	MOVQ DX, 0(SI)
	IMULQ $1000000000, DX
	SUBQ DX, CX
	MOVQ CX, 8(SI)
	XORL AX, AX
	RET
slow:
	MOVL $228, AX // clock_gettime
	SYSCALL
	RET

TEXT ·installVDSO(SB),NOSPLIT,$0-0
	LEAQ ·vdsoClockGettime(SB), AX
	MOVQ AX, runtime·vdsoClockgettimeSym(SB)
	RET
