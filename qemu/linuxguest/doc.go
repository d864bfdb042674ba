// Package linuxguest runs a static program on Linux in the same virtual machine
// that the kernels of this project run in: same QEMU, accelerator, CPU model, vCPUs and
// memory. It is the yardstick for benchmarks and the oracle for tests.
//
// The kernel is Debian's linux-image-cloud-amd64. It is downloaded through apt once
// (not installed) and kept, uncompressed, in the user's cache directory by its
// version. The root file system is an initramfs of three files: process 1
// (package linuxguest/init), the program, its arguments. Boot takes 1.5 to 2 s
// under TCG on microvm.
package linuxguest
