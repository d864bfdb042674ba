#include "textflag.h"

// boot64 is the entry of the image (-E boot64): it has no Go declaration, so that the linker takes this symbol and not
// a wrapper. The trampoline passes RDI = PVH start info, RSI = boot PML4, both physical, in 64-bit mode with no stack.
TEXT boot64(SB),NOSPLIT|NOFRAME,$0
	LEAQ ·boot(SB), R12
	JMP dinos∕kernel∕trap·EnterBoot(SB)

TEXT ·runtimeEntry(SB),NOSPLIT,$0-8
	LEAQ _rt0_amd64_linux(SB), AX
	MOVQ AX, ret+0(FP)
	RET
