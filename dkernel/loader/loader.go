// Package loader turns an executable file into a running program, as execve(2) does: static ELF64 files for x86-64, static
// PIE too, and "#!" scripts. It follows Linux' fs/exec.c, fs/binfmt_elf.c and fs/binfmt_script.c; where it does not,
// a comment says so.
//
// An execve has two phases. Nothing of the calling process changes before both are over:
//
//	args, err := loader.CopyArgs(mem, argv, envp, limit)   // strings, from the old program's memory
//	p, err := loader.Prepare(request, system)              // opens interpreters, checks headers, decides credentials
//	space := mm.New(…, p.Layout)                            // a fresh address space
//	image, err := p.Load(space)                             // fills it: segments, vDSO, stack
//	…                                                       // then the process takes image, space, credentials; it cannot fail
//	image.Start(frame)                                      // registers
//
// So an execve that fails at any point returns its errno to the old program. (Linux kills a program whose execve fails after
// its point of no return.) Who gives up after Prepare calls Program.Close.
//
// Errors are of type *Error: an errno for the program, and a sentence for people.
//
// Dynamically linked executables are refused, with linux.ELIBBAD, which Linux returns for an interpreter that it cannot use.
// ENOEXEC would be wrong: shells take it as the sign of a script without "#!" and would read the ELF file as commands.
//
// Nothing here is safe for concurrent use except that any number of programs may be prepared and loaded at once.
package loader

import (
	"fmt"

	"dinos/dkernel/cred"
	"dinos/dkernel/mm"
	"dinos/dkernel/uio"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// Sizes of the interface.
const (
	pageSize = 4096
	// headSize is how much of a file decides what it is (BINPRM_BUF_SIZE).
	headSize = 256
	// taskSize is the end of a program's addresses.
	taskSize = ureg.UserTop
	// maxScripts is how many interpreters may be scripts themselves, counting the first.
	maxScripts = 5
	// maxPhdrs is the limit of the program headers' size in bytes.
	maxPhdrs = 65536
	// pathMax is PATH_MAX.
	pathMax = 4096
)

// File is a file open for execution: it is regular, the caller may execute it and nobody may write to it (linux.EACCES and ETXTBSY
// of the Opener otherwise).
type File interface {
	// ReadAt is io.ReaderAt's. It may also return less than asked for with a nil error at the end of the file.
	ReadAt(p []byte, off int64) (int, error)
	// Object is the file for mapping. The address space retains it itself.
	Object() mm.Object
	Attr() Attr
	// Close gives the file up.
	Close()
}

// Attr is what of an inode decides about credentials.
type Attr struct {
	Mode     uint32 // S_ISUID, S_ISGID and permissions
	UID, GID uint32
	NoSUID   bool // its mount ignores the set-id bits
}

// Opener opens interpreters by the path in the script: fs/exec.c, open_exec.
type Opener interface {
	OpenExec(path string) (File, error)
}

// Request is what execve is asked for.
type Request struct {
	// Path is the program as the caller named it: scripts get it as $0, programs as AT_EXECFN. For execveat(2) with a descriptor it
	// is /dev/fd/N or /dev/fd/N/path.
	Path string
	// Inaccessible says that Path will not lead to the file any more: a descriptor with FD_CLOEXEC. Scripts fail with linux.ENOENT.
	Inaccessible bool
	// File is the program, open. Prepare takes it over, also when it fails.
	File   File
	Opener Opener
	Args   *Args
	Cred   *cred.Cred
	// Personality is that of personality(2).
	Personality uint32
	// StackLimit is the soft RLIMIT_STACK, ^0 for none.
	StackLimit uint64
	// Unsafe says that somebody watches the process, or shares its file system state (LSM_UNSAFE_*): set-id bits then give
	// nothing to a caller who could not have it anyway.
	Unsafe bool
}

// Space is a fresh address space, made with Program.Layout: what of mm.Space is needed. All mappings are MAP_PRIVATE. Its Memory is the
// program's view: Zero of a page that the program may not write fails.
type Space interface {
	uio.Memory
	Map(a mm.MapArgs) (uint64, error)
	Unmap(addr, n uint64) error
	// SetBreakStart sets where brk(2) starts; whole pages.
	SetBreakStart(addr uint64)
	// SetStack says that the mapping at addr is the stack.
	SetStack(addr uint64)
}

var _ Space = (*mm.Space)(nil)

// System is what the kernel says about itself to every program. It does not change.
type System struct {
	HWCap  uint64 // AT_HWCAP: CPUID.1:EDX
	HWCap2 uint64 // AT_HWCAP2: bit 1 if programs may use RDFSBASE and the like
	// MinSigStack is AT_MINSIGSTKSZ: the size of a signal frame with all vector state.
	MinSigStack uint64
	// Random returns 64 random bits. Any number of goroutines call it.
	Random func() uint64
	// VVar and VDSO are the pages of package vdso: one page of data, VDSOSize bytes of image. VDSO nil: programs get no vDSO.
	VVar, VDSO mm.Object
	VDSOSize   uint64
}

// Program is an executable that has been found good, and all that can be decided before there is an address space. The fields
// are for reading.
type Program struct {
	Layout mm.Layout
	// Cred are the credentials after execve, Secure is AT_SECURE: the program runs with rights that its caller may not have.
	Cred   *cred.Cred
	Secure bool
	// Personality after execve.
	Personality uint32
	// StackLimit is RLIMIT_STACK after execve: a secure program gets at most 8 MiB.
	StackLimit uint64
	// Dumpable is PR_GET_DUMPABLE after execve, 0 or 1.
	Dumpable int
	// Path is the caller's name of the program, Comm the thread's name after execve, at most 15 bytes (PR_GET_NAME).
	Path, Comm string
	// File is the executable (/proc/PID/exe); of a script, the interpreter.
	File File

	elf    *executable
	sys    *System
	prefix []byte // arguments that a script put in place of argv[0], each with its zero byte
	nfix   int    // how many
	skip   int    // bytes of args.data that they replace
	args   *Args
	random bool // the layout is randomised
}

// Close gives up the program's file, for who does not start it.
func (p *Program) Close() {
	if p.File != nil {
		p.File.Close()
		p.File = nil
	}
}

// Image is a loaded program: what the process needs to know of it.
type Image struct {
	Entry, SP          uint64
	CodeStart, CodeEnd uint64
	DataStart, DataEnd uint64
	BrkStart           uint64
	StackStart         uint64 // the stack pointer at the start, as /proc/PID/stat shows it
	ArgStart, ArgEnd   uint64
	EnvStart, EnvEnd   uint64
	VDSO               uint64 // 0: none
	Auxv               []byte // as on the stack and in /proc/PID/auxv, with its end
}

// Start sets the registers that the program starts with: all zero but for RIP, RSP and the flags. The x87 and vector state beyond
// Frame is reset by ureg.CPU.
func (i *Image) Start(f *ureg.Frame) {
	*f = ureg.Frame{
		MXCSR: ureg.DefaultMXCSR, RIP: i.Entry, RSP: i.SP, RFLAGS: ureg.FlagIF | 1<<1, OrigRAX: ureg.NoSyscall,
	}
}

// Error is why a program cannot be executed.
type Error struct {
	Errno  linux.Errno
	Path   string // of the file at fault; "" if it is no file
	Reason string // "" if Errno says it all
}

func (e *Error) Error() string {
	s := e.Reason
	if s == "" {
		s = e.Errno.Error()
	}
	if e.Path == "" {
		return s
	}
	return e.Path + ": " + s
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Errno is the errno of an error of this package.
func Errno(err error) linux.Errno {
	switch e := err.(type) {
	case *Error:
		return e.Errno
	case linux.Errno:
		return e
	}
	return linux.EIO
}

func fail(e linux.Errno, path, format string, args ...any) error {
	return &Error{e, path, fmt.Sprintf(format, args...)}
}

// failed puts an error of another package in the form of this one.
func failed(err error, path, what string) error {
	e := Errno(err)
	return &Error{e, path, what + ": " + e.Error()}
}
