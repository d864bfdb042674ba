package machine

import (
	"io"

	"github.com/usbarmory/tamago/soc/intel/uart"

	"dinos/kernel/testproto"
	"dinos/kernel/x86"
)

// The first serial port of a PC.
const (
	serialPort = 0x3f8
	serialIRQ  = 4
)

// serial is the console: the first serial port, written synchronously, so that nothing is lost when the machine dies.
type serial struct {
	dev   uart.UART
	early []byte  // what was typed before init, at most one byte: a port without FIFO keeps no more
	one   [1]byte // its place
}

var console serial

func (s *serial) init() {
	s.dev = uart.UART{Index: 1, Base: serialPort, DTR: true, RTS: true}
	s.dev.Init()
	// Turning the FIFO on empties the port.
	if b, ok := s.dev.Rx(); ok {
		s.one[0] = b
		s.early = s.one[:]
	}
	// The 16550's FIFO (FCR), which TamaGo's driver leaves off.
	x86.Out8(serialPort+uart.FCR, 0x07)
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

// Console returns the input of the console: what is typed at the serial port, byte by byte. To be called once.
func (m *Machine) Console() (io.Reader, error) {
	e, err := NewEvent("console")
	if err != nil {
		return nil, err
	}
	if err := m.RouteISA(serialIRQ, e); err != nil {
		return nil, err
	}
	x86.Out8(serialPort+uart.IER, 1) // interrupt when a byte has come
	return &consoleInput{e}, nil
}

type consoleInput struct{ e *Event }

// Read returns what has been typed, at least one byte.
func (c *consoleInput) Read(p []byte) (n int, err error) {
	n = copy(p, console.early)
	console.early = console.early[n:]
	for len(p) > 0 && n == 0 {
		for ; n < len(p); n++ {
			b, ok := console.dev.Rx()
			if !ok {
				break
			}
			p[n] = b
		}
		if n == 0 {
			if _, err := c.e.Wait(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}
