package linux

// ELF64 (System V ABI, x86-64 supplement; include/uapi/linux/elf.h).
const (
	ELFMAG = "\x7fELF"

	ElfEhdrSize = 64 // sizeof(Elf64_Ehdr)
	ElfPhdrSize = 56 // sizeof(Elf64_Phdr)

	ET_EXEC   = 2
	ET_DYN    = 3
	EM_386    = 3
	EM_X86_64 = 62

	PT_LOAD         = 1
	PT_DYNAMIC      = 2
	PT_INTERP       = 3
	PT_TLS          = 7
	PT_GNU_EH_FRAME = 0x6474e550
	PT_GNU_STACK    = 0x6474e551
	PT_GNU_PROPERTY = 0x6474e553

	PF_X = 1
	PF_W = 2
	PF_R = 4
)

// More tags of the auxiliary vector (include/uapi/linux/auxvec.h, arch/x86/include/uapi/asm/auxvec.h).
const (
	AT_PHDR              = 3
	AT_PHENT             = 4
	AT_PHNUM             = 5
	AT_BASE              = 7
	AT_FLAGS             = 8
	AT_ENTRY             = 9
	AT_UID               = 11
	AT_EUID              = 12
	AT_GID               = 13
	AT_EGID              = 14
	AT_PLATFORM          = 15
	AT_HWCAP             = 16
	AT_CLKTCK            = 17
	AT_SECURE            = 23
	AT_HWCAP2            = 26
	AT_RSEQ_FEATURE_SIZE = 27
	AT_RSEQ_ALIGN        = 28
	AT_EXECFN            = 31
	AT_SYSINFO_EHDR      = 33
	AT_MINSIGSTKSZ       = 51
)

// Personality flags (personality(2), include/uapi/linux/personality.h).
const (
	ADDR_NO_RANDOMIZE  = 0x0040000
	MMAP_PAGE_ZERO     = 0x0100000
	ADDR_COMPAT_LAYOUT = 0x0200000
	READ_IMPLIES_EXEC  = 0x0400000
	ADDR_LIMIT_3GB     = 0x8000000
)
