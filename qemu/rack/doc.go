// Package rack runs a rack on this host: a control kernel and data kernels, each in a virtual machine, with shared memory and doorbells
// between them. The host tool is a peer of theirs on the same rings (package peer), numbered Machines.
//
// [Start] makes the memory and formats it, starts the machines and waits until all kernels say that they are members. From then on the
// rack lives by itself; a Rack's methods end, start, pause and add kernels, and tell how it is. [Rack.Close] ends all of it. [Launch] is the process that
// holds a rack and serves commands (package control) about it.
//
// # Lives
//
// A machine's end is the end of its kernel's life for certain, so the control kernel is told at once, before a successor starts; it would find
// out by the missing heartbeat, but later. The other way round, the control kernel asks to make sure that a life is over which it has
// declared dead (proto.Fence): then the QEMU of that life is killed, but not that of a later one. A life is named by the generation in the machine
// block, which the kernel itself raises when it starts.
//
// A control kernel whose machine ends without being asked to is started again, in the same memory. Data kernels are not: whether and when is the
// owner's decision.
//
// # What stays
//
// Nothing, when Close returns. If the process is killed, its machines die with it (package vm), and the next rack, or whoever lists the
// racks' names, removes the files (package statedir).
//
// # Locks
//
// kernel.op, one operation at a time on a kernel, before Rack.mu, which is held for moments only.
package rack
