package machine

import (
	"github.com/usbarmory/tamago/soc/intel/uart"

	"dinos/kernel/testproto"
	"dinos/kernel/x86"
)

// serial is the console: the first serial port, written synchronously, so that nothing is lost when the machine dies.
type serial struct{ dev uart.UART }

var console serial

func (s *serial) init() {
	s.dev = uart.UART{Index: 1, Base: 0x3f8, DTR: true, RTS: true}
	s.dev.Init()
	// The 16550's FIFO (FCR), which TamaGo's driver leaves off.
	x86.Out8(0x3fa, 0x07)
}

// Write implements rt.Console.
func (s *serial) Write(p []byte) {
	for _, c := range p {
		if c == '\n' {
			s.dev.Tx('\r')
		}
		s.dev.Tx(c)
	}
}

// debugExit ends QEMU with a status if the machine has an isa-debug-exit device; otherwise the CPU halts.
func debugExit(e testproto.Exit) {
	x86.Out8(testproto.DebugExitPort, uint8(e))
	x86.Halt()
}

// powerOff ends the machine after the runtime's exit status.
func powerOff(status uint64) {
	if status == 0 {
		debugExit(testproto.ExitPass)
	}
	debugExit(testproto.ExitFail)
}
