// Package vm starts QEMU virtual machines for kernels of this project and looks after them: arguments, console, QMP,
// deadlines, exit codes, and what a hung machine was doing.
//
// Whose fault a failure is, is part of its type: a [*GuestError] is the kernel's (it crashed, failed, reset or hung), a
// [*HostError] is ours or the machine's (no QEMU, no memory, bad configuration, cancelled). No error is both.
//
// Nothing outlives its owner. Close kills the machine; should the owner die without calling it, the host's kernel kills QEMU
// (PR_SET_PDEATHSIG). Files belong into a [RunDir], which the next run removes when its owner died.
//
// Console and QMP are not files: the console is QEMU's standard input and output, QMP an inherited socket.
package vm
