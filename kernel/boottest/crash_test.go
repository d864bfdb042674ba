package boottest

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/qemu/vm"
)

// TestCrash: every way to fail, in every context, ends with a report and the exit status of a crash.
func TestCrash(t *testing.T) {
	const (
		inKernel = "in kernel code, kernel stack"
		nilStore = "MOVQ $0x1, 0(AX)"
		culprit  = `dinos/kernel/ktest\.`
	)
	for _, c := range []struct {
		crash, in string
		want      []string // regular expressions
	}{
		{"nil", "goroutine", []string{`panic: runtime error: invalid memory address or nil pointer dereference`, `#PF page fault, error code 0x2: write to 0x0, which is not mapped`, regexp.QuoteMeta(nilStore), culprit}},
		{"nil", "system", []string{`SIGSEGV: segmentation violation`, regexp.QuoteMeta(nilStore), culprit}},
		{"nil", "kernel", []string{inKernel, regexp.QuoteMeta(nilStore), culprit, `stack of the thread that was being served`}},
		{"nil", "interrupt", []string{`in kernel code, interrupt stack`, regexp.QuoteMeta(nilStore), culprit}},
		{"divide", "goroutine", []string{`panic: runtime error: integer divide by zero`, culprit}},
		{"divide", "system", []string{`integer divide by zero`, culprit}},
		{"divide", "kernel", []string{`integer divide by zero`, `the Go runtime gave up in kernel code`, culprit}},
		{"divide", "interrupt", []string{`integer divide by zero`, `the Go runtime gave up in kernel code`, culprit}},
		{"overflow", "goroutine", []string{`goroutine stack exceeds [0-9]+-byte limit`, `fatal error: stack overflow`}},
		{"overflow", "system", []string{`fatal error: morestack on g0`}},
		{"overflow", "kernel", []string{`fatal error: morestack on g0`, `the Go runtime gave up in kernel code`}},
		{"overflow", "interrupt", []string{`fatal error: morestack on g0`, `the Go runtime gave up in kernel code`}},
		{"undefined", "goroutine", []string{`SIGILL: illegal instruction`, `#UD invalid opcode`, `(?m)UD2|UNDEF`}},
		{"undefined", "kernel", []string{inKernel, `#UD invalid opcode`}},
		{"protect", "goroutine", []string{`#GP general protection`}},
		{"protect", "interrupt", []string{`#GP general protection`, `in kernel code, interrupt stack`}},
		{"execute", "goroutine", []string{`#PF page fault, error code 0x11: execution of 0x[0-9a-f]+, which is protected`}},
		{"text", "goroutine", []string{`#PF page fault, error code 0x3: write to 0x[0-9a-f]+, which is protected`}},
		{"rodata", "goroutine", []string{`#PF page fault, error code 0x3: write to 0x[0-9a-f]+, which is protected`}},
		{"guard", "kernel", []string{`guard page: the interrupt stack overflowed`}},
		{"double", "goroutine", []string{`double fault`}},
		{"double", "system", []string{`double fault`}},
		{"double", "kernel", []string{`double fault`}},
		{"double", "interrupt", []string{`double fault`}},
		{"alloc", "kernel", []string{`the Go runtime gave up in kernel code|CPU exception that nobody can handle`, inKernel + `|runtime stack:`}},
		{"alloc", "interrupt", []string{`the Go runtime gave up in kernel code|CPU exception that nobody can handle`}},
		{"nmi", "goroutine", []string{`non-maskable interrupt: somebody asks for a report`}},
		{"panic", "goroutine", []string{`panic: deliberate`, `unrecovered panic or fatal error`}},
		{"exit", "goroutine", []string{`the Go runtime ended`}},
		{"memory", "goroutine", []string{`out of memory`}},
	} {
		t.Run(c.crash+" in "+c.in, func(t *testing.T) {
			t.Parallel()
			var out string
			var err error
			// Another CPU may have been stopped while it held a lock of the runtime; the report then does without what needs it. That
			// is not what this test is about, but it must be rare.
			for range 4 {
				out, err = end(t, vm.Config{CPUs: 2, Append: "crash=" + c.crash + " in=" + c.in})
				if !strings.Contains(out, "this part failed: kernel code waited for a lock of the Go runtime") {
					break
				}
			}
			fails(t, err, vm.Crashed, out)
			for _, re := range append(c.want, `dinos: CRASH on CPU [01] of 2`, `last events of this CPU`, `end of crash report`) {
				require.Regexp(t, regexp.MustCompile(re), out)
			}
			require.NotContains(t, out, "this part failed")
		})
	}
}

// TestHang: a kernel that makes no progress is dumped from outside, with the stacks of its CPUs.
func TestHang(t *testing.T) {
	for _, in := range []string{"goroutine", "kernel"} {
		t.Run(in, func(t *testing.T) {
			v, err := vm.Start(vm.Config{Image: testImage(t), CPUs: 2, Append: "crash=hang in=" + in})
			require.NoError(t, err)
			defer v.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err = v.Wait(ctx)
			var g *vm.GuestError
			require.ErrorAs(t, err, &g)
			require.Equal(t, vm.Hung, g.Failure)
			require.Contains(t, g.Dump, "dinos/kernel/ktest.init.func", "the loop:\n%s", g.Dump)
		})
	}
}
