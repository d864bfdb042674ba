package trap

import (
	"unsafe"

	"dinos/kernel/x86"
)

// This is the boundary between addresses, which the CPU and the assembly deal in, and typed records.

// areaOfBoot is the memory of the first CPU's Area; twice the size because the linker cannot align it.
var areaOfBoot [2 * AreaSize]byte

// idt is the interrupt descriptor table, shared by all CPUs; written once by Init.
var idt [512]uint64

// CPUAt returns the CPU record of the Area at address a.
func CPUAt(a uint64) *CPU { return (*CPU)(unsafe.Add(nil, a)) }

// Self returns the record of the CPU that runs the caller. With interrupts on the caller may move to another CPU at any time.
func Self() *CPU { return CPUAt(x86.ReadGSBase()) }

// At returns the Context at address a.
func At(a uint64) *Context { return (*Context)(unsafe.Add(nil, a)) }

// Address returns the address of c.
func (c *Context) Address() uint64 { return uint64(uintptr(unsafe.Pointer(c))) }

// addressOf is for records in static or direct-mapped memory, which never move.
func addressOf[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

// The CPU record must end before the first stack; a negative array length stops the build otherwise.
var _ [2*granule - unsafe.Sizeof(CPU{})]byte

// userAt returns the User at address a.
func userAt(a uint64) *User { return (*User)(unsafe.Add(nil, a)) }

// Address returns the address of u.
func (u *User) Address() uint64 { return addressOf(u) }

// User returns the User that runs in ring 3 on c: there must be one.
func (c *CPU) User() *User { return userAt(c.InUser.Load()) }

// OwnerUser returns the User whose extended state is in c's registers: there must be one.
func (c *CPU) OwnerUser() *User { return userAt(c.Owner) }
