package machine

import (
	"runtime"

	"golang.org/x/arch/x86/x86asm"

	"dinos/kernel/klog"
	"dinos/kernel/trap"
)

// The parts of the crash report that need the runtime's symbol table, and the one that needs its heap.

// reportInstruction prints the instruction at RIP.
func reportInstruction() {
	r := &report
	if !r.valid || !readable(r.c.RIP) {
		return
	}
	n := uint64(0)
	for n < 15 && readable(r.c.RIP+n) {
		n++
	}
	in, err := x86asm.Decode(bytesAt(r.c.RIP, n), 64)
	if err != nil {
		flush(out().Str("no instruction there: ").Str(err.Error()))
		return
	}
	name := func(va uint64) (string, uint64) {
		if f := runtime.FuncForPC(uintptr(va)); f != nil {
			return f.Name(), uint64(f.Entry())
		}
		return "", 0
	}
	flush(out().Str(x86asm.GoSyntax(in, r.c.RIP, name)).Str("   ; ").Str(x86asm.IntelSyntax(in, r.c.RIP, name)))
}

func reportStack() {
	if !report.valid {
		return
	}
	say("stack:")
	backtrace(&report.c)
}

// reportThread prints the stack of the thread that kernel code was working for.
func reportThread() {
	cur := report.cpu.Current
	if cur == 0 || report.valid && report.c.InKernel == 0 {
		return // nothing, or what has been printed
	}
	c := trap.At(cur)
	say("stack of the thread that was being served:")
	backtrace(c)
}

func reportOthers() {
	for i := range kernel.NumCPU() {
		if i == int(report.cpu.ID) || !kernel.Online(i) {
			continue
		}
		l := report.line.Reset().Str("dinos: CPU ").Dec(uint64(i))
		s := &report.stopped[i]
		if s.done.Load() == 0 {
			flush(l.Str(" did not stop"))
			continue
		}
		if s.c.InKernel != 0 && kernel.Idle(i) {
			flush(l.Str(" was idle"))
			continue
		}
		flush(l.Str(":"))
		backtrace(&s.c)
	}
}

// backtrace follows the chain of frame pointers from c: every Go function with a frame keeps one.
func backtrace(c *trap.Context) {
	frame(c.RIP, true)
	// Stopped in a prologue or a leaf, the return address may be on top of the stack and its frame not yet in the chain; the
	// one extra line is worth it when the top word points into code.
	if readable(c.RSP) {
		bp, pc := c.RBP, load8(c.RSP)
		if inText(pc) && (bp&7 != 0 || !readable(bp+8) || load8(bp+8) != pc) {
			frame(pc, false)
		}
	}
	callers(c, 32, func(pc uint64) { frame(pc, false) })
}

// callers calls f with up to n return addresses of the chain of frame pointers from c.
func callers(c *trap.Context, n int, f func(pc uint64)) {
	bp := c.RBP
	for range n {
		if bp&7 != 0 || bp>>63 == 0 || !readable(bp) || !readable(bp+8) {
			return
		}
		pc, next := load8(bp+8), load8(bp)
		if !inText(pc) {
			return
		}
		f(pc)
		if next <= bp {
			return
		}
		bp = next
	}
}

// frame prints one line for a program counter; a return address is looked up one byte earlier, inside the call.
func frame(pc uint64, exact bool) {
	l := out().Hex64(pc).Byte(' ')
	at := pc
	if !exact {
		at--
	}
	symbol(l, at)
	flush(l)
}

func symbol(l *klog.Line, pc uint64) {
	f := runtime.FuncForPC(uintptr(pc))
	if f == nil {
		l.Str("?")
		return
	}
	file, line := f.FileLine(uintptr(pc))
	short := file
	for i, slashes := len(file)-1, 0; i >= 0; i-- {
		if file[i] == '/' {
			if slashes++; slashes == 2 {
				short = file[i+1:]
				break
			}
		}
	}
	l.Str(f.Name()).Str("+").Hex(pc - uint64(f.Entry())).Str("  ").Str(short).Byte(':').Dec(uint64(line))
}
