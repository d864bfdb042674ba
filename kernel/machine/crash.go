package machine

import (
	"dinos/kernel/klog"
	"dinos/kernel/testproto"
	"dinos/kernel/trap"
	"dinos/kernel/x86"
)

func onFault(cpu *trap.CPU, c *trap.Context) *trap.Context {
	address := uint64(0)
	if c.Vector == trap.VecPage {
		address = x86.ReadCR2()
	}
	return kernel.Fault(cpu, c, address)
}

func crash(cpu *trap.CPU, c *trap.Context, reason string) {
	var l klog.Line
	console.Write(l.Str("CRASH ").Str(reason).Str("\n").Bytes())
	if c != nil {
		console.Write(l.Reset().Str("vec ").Hex(c.Vector).Str(" err ").Hex(c.ErrorCode).Str(" rip ").Hex(c.RIP).Str(" rsp ").Hex(c.RSP).Str(" cr2 ").Hex(x86.ReadCR2()).Str(" bp ").Hex(c.RBP).Str("\n").Bytes())
	}
	debugExit(testproto.ExitCrash)
}
