// Package link takes a kernel to its rack: it finds the ivshmem device, checks that what is in its memory is the rack that the
// command line says, and makes the configuration with which package peer takes the kernel's place in it.
//
// The package is pure: the device, the events that its interrupts raise and the clock are behind interfaces.
//
// # Command line
//
//	dinos.peer=N      the peer that this kernel is: 0 the ckernel, 1 and up dkernels
//	dinos.name=NAME   what it calls itself; the layout's name for the peer if it is not given
//	dinos.rack=GEN    the rack generation that the memory must have; any if it is not given
//
// # Doorbells
//
// Vector 0 of each peer means "look at your rings". Its interrupt raises an event, for which the goroutine of the rpc loop waits
// itself (Sleeper): between doorbell and loop there is no other goroutine.
package link
