// Package testproto is what a kernel under test and the host that runs it agree on: exit codes, the line format
// of test events, and the command-line keys that select tests.
//
// A guest that runs tests prints one line an event on its first serial port,
//
//	##dinos-test {"test":"NAME","event":"run|pass|fail|skip","ms":1.5,"msg":"..."}
//	##dinos-test {"event":"done","pass":N,"fail":N,"skip":N}
//
// and then writes ExitPass or ExitFail to the isa-debug-exit device. Tests run one after the other, so that every "run" is followed by
// exactly one other event of the same test. Anything else on the console is log.
package testproto

// Exit is a value written to the isa-debug-exit device at DebugExitPort. QEMU then exits with status Exit<<1 | 1.
type Exit uint8

const (
	ExitPass    Exit = 0x10 // all selected tests passed; QEMU exits with 33
	ExitFail    Exit = 0x11 // some test failed; 35
	ExitCrash   Exit = 0x12 // the kernel crashed and has reported why on the console; 37
	ExitRefused Exit = 0x13 // the kernel refuses to boot on this machine and has said why; 39
	ExitFenced  Exit = 0x14 // the rack has declared this life of the kernel dead, so it stopped; 41
)

// DebugExitPort is the I/O port of the isa-debug-exit device in every virtual machine of this project
// (iobase=0xf4, iosize=4).
const DebugExitPort = 0xf4

// Status is the exit status of QEMU after e.
func (e Exit) Status() int { return int(e)<<1 | 1 }

// FromStatus returns the value that the guest wrote, if QEMU's exit status comes from isa-debug-exit. Status 1 is
// not taken for one: QEMU also exits with 1 when it cannot start.
func FromStatus(status int) (Exit, bool) {
	if status&1 == 0 || status < 3 || status > 0xff {
		return 0, false
	}
	return Exit(status >> 1), true
}

// String names e.
func (e Exit) String() string {
	switch e {
	case ExitPass:
		return "pass"
	case ExitFail:
		return "tests failed"
	case ExitCrash:
		return "crash"
	case ExitRefused:
		return "boot refused"
	case ExitFenced:
		return "fenced"
	}
	const hex = "0123456789abcdef"
	return "unknown exit 0x" + string([]byte{hex[e>>4], hex[e&15]})
}
