package vm

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a dump.
const (
	maxFrames = 64
	scanWords = 128 // of a stack without frame pointers
)

// cpuState is what a dump needs of "info registers".
type cpuState struct {
	index         int
	rip, rsp, rbp uint64
	cpl           int
	halted        bool
}

// Dump stops the machine and describes what its vCPUs are doing: registers, and stacks with the symbols of the image. It fails if
// QEMU does not answer.
func (v *VM) Dump(ctx context.Context) (string, error) {
	var status struct {
		Status string `json:"status"`
	}
	if err := v.monitor.Run(ctx, "query-status", nil, &status); err != nil {
		return "", err
	}
	// Stopped, the stacks of all vCPUs are of one moment.
	if err := v.monitor.Run(ctx, "stop", nil, nil); err != nil {
		return "", err
	}
	regs, err := v.monitor.HMP(ctx, "info registers -a", 0)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s was %s (%s)\n", v.cfg.Name, status.Status, v.cfg.Accel.Why)
	syms, err := OpenSymbols(v.cfg.Image)
	if err != nil {
		fmt.Fprintf(&b, "no symbols: %v\n", err)
	}
	for _, c := range parseRegisters(regs) {
		state := "running"
		if c.halted {
			state = "halted"
		}
		fmt.Fprintf(&b, "--- vCPU %d: %s, CPL %d, RSP %#x\n", c.index, state, c.cpl, c.rsp)
		if err := v.stack(ctx, &b, c, syms); err != nil {
			return "", err
		}
	}
	fmt.Fprintf(&b, "--- registers\n%s", withoutVectors(regs))
	return b.String(), nil
}

// stack writes the call stack of a vCPU, innermost first. Go keeps frame pointers; where the chain leads nowhere, as in
// assembly, the words on the stack that may be return addresses follow with a question mark.
func (v *VM) stack(ctx context.Context, b *strings.Builder, c cpuState, syms *Symbols) error {
	fmt.Fprintf(b, "  %016x %s\n", c.rip, syms.Name(c.rip))
	// The chain may lead to another stack at any address, so its end is a frame that was seen or cannot be one.
	seen := map[uint64]bool{0: true}
	for fp := c.rbp; !seen[fp] && len(seen) <= maxFrames; {
		w, err := v.words(ctx, c.index, fp, 2)
		if err != nil {
			return err
		}
		if len(w) < 2 || syms != nil && !syms.IsCode(w[1]) {
			break
		}
		// A return address is that of the next instruction: the call is before.
		fmt.Fprintf(b, "  %016x %s\n", w[1], syms.Name(w[1]-1))
		seen[fp] = true
		fp = w[0]
	}
	if len(seen) > 1 {
		return nil
	}
	w, err := v.words(ctx, c.index, c.rsp, scanWords)
	if err != nil {
		return err
	}
	for _, word := range w {
		if syms.IsCode(word) {
			fmt.Fprintf(b, "  %016x %s ?\n", word, syms.Name(word-1))
		}
	}
	return nil
}

// words reads n 64-bit words at virtual address at as vCPU cpu sees it. It returns fewer where memory ends.
func (v *VM) words(ctx context.Context, cpu int, at uint64, n int) ([]uint64, error) {
	out, err := v.monitor.HMP(ctx, fmt.Sprintf("x /%dxg %#x", n, at), cpu)
	if err != nil {
		return nil, err
	}
	return parseWords(out), nil
}

// parseWords reads the output of the monitor's x command: lines of "address: 0xword 0xword", or a message.
func parseWords(out string) []uint64 {
	var words []uint64
	for line := range strings.Lines(out) {
		_, list, ok := strings.Cut(line, ":")
		if !ok {
			return words
		}
		for _, f := range strings.Fields(list) {
			w, err := strconv.ParseUint(f, 0, 64)
			if err != nil {
				return words
			}
			words = append(words, w)
		}
	}
	return words
}

var (
	cpuHead  = regexp.MustCompile(`(?m)^\s*CPU#(\d+)\s*$`)
	register = regexp.MustCompile(`\b(RIP|RSP|RBP|CPL|HLT|EIP|ESP|EBP)=([0-9a-f]+)`)
)

// parseRegisters reads the output of "info registers -a".
func parseRegisters(out string) []cpuState {
	heads := cpuHead.FindAllStringSubmatchIndex(out, -1)
	var cpus []cpuState
	for i, h := range heads {
		end := len(out)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		var c cpuState
		c.index, _ = strconv.Atoi(out[h[2]:h[3]])
		for _, m := range register.FindAllStringSubmatch(out[h[1]:end], -1) {
			n, err := strconv.ParseUint(m[2], 16, 64)
			if err != nil {
				continue
			}
			switch m[1] {
			case "RIP", "EIP":
				c.rip = n
			case "RSP", "ESP":
				c.rsp = n
			case "RBP", "EBP":
				c.rbp = n
			case "CPL":
				c.cpl = int(n)
			case "HLT":
				c.halted = n != 0
			}
		}
		cpus = append(cpus, c)
	}
	return cpus
}

// withoutVectors drops the lines of the floating-point and vector registers.
func withoutVectors(regs string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(strings.ReplaceAll(regs, "\r", ""), "\n"), func(line string) bool {
		line = strings.TrimSpace(line)
		return line == "" || strings.HasPrefix(line, "FPR") || strings.HasPrefix(line, "XMM") || strings.HasPrefix(line, "YMM") ||
			strings.HasPrefix(line, "ZMM") || strings.HasPrefix(line, "Opmask") || strings.HasPrefix(line, "FCW")
	})
	return strings.Join(lines, "")
}
