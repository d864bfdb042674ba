// Package emittest checks programs of package emit against an independent decoder.
package emittest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"dinos/boot/emit"
)

// Listing disassembles l, one line an instruction: address, mode, bytes, mnemonic. It returns an error when the bytes of
// an instruction do not decode to exactly that many bytes, or not to the mnemonic beside them. References to
// values in the mnemonics are resolved by labels of l and by consts.
func Listing(l *emit.Linked, consts map[string]uint64) (string, error) {
	var out strings.Builder
	for _, line := range l.Lines {
		for _, name := range slices.Sorted(maps.Keys(l.Labels)) {
			if l.Labels[name] == line.Addr {
				fmt.Fprintf(&out, "%s:\n", name)
			}
		}
		code := l.Code[line.Addr-l.Org:][:line.Len]
		if line.Bits == 0 {
			fmt.Fprintf(&out, "%08x    % x\n", line.Addr, code)
			continue
		}
		inst, err := x86asm.Decode(code, line.Bits)
		if err != nil {
			return "", fmt.Errorf("%#x %q: % x does not decode in %d-bit mode: %w", line.Addr, line.Text, code, line.Bits, err)
		}
		if inst.Len != line.Len {
			return "", fmt.Errorf("%#x %q: % x is an instruction of %d bytes, not %d", line.Addr, line.Text, code, inst.Len, line.Len)
		}
		want := resolve(line.Text, l, consts)
		got := disasm(inst, line, l)
		if got != want {
			return "", fmt.Errorf("%#x: % x decodes in %d-bit mode to %q, not %q", line.Addr, code, line.Bits, got, want)
		}
		fmt.Fprintf(&out, "%08x %d %-30x %s\n", line.Addr, line.Bits, code, got)
	}
	return out.String(), nil
}

// disasm prints inst in Intel syntax, the targets of relative jumps by name.
func disasm(inst x86asm.Inst, line emit.Line, l *emit.Linked) string {
	for i, a := range inst.Args {
		// In 64-bit mode the decoder sign-extends 32-bit immediates even when the operation is 32 bits wide.
		if imm, ok := a.(x86asm.Imm); ok && inst.DataSize == 32 {
			inst.Args[i] = x86asm.Imm(uint32(imm))
		}
		if rel, ok := a.(x86asm.Rel); ok {
			to := uint32(int64(line.Addr) + int64(inst.Len) + int64(rel))
			if l.Labels[line.Ref] != to {
				return fmt.Sprintf("%s to %#x, which is not %s", inst.Op, to, line.Ref)
			}
			return strings.ToLower(inst.Op.String()) + " " + line.Ref
		}
		if mem, ok := a.(x86asm.Mem); ok && mem.Base == x86asm.RIP {
			to := uint32(int64(line.Addr) + int64(inst.Len) + mem.Disp)
			if l.Labels[line.Ref] != to {
				return fmt.Sprintf("%s of %#x, which is not %s", inst.Op, to, line.Ref)
			}
			text := x86asm.IntelSyntax(inst, uint64(line.Addr), nil)
			before, after, _ := strings.Cut(text, "[rip")
			_, after, _ = strings.Cut(after, "]")
			return before + "[" + line.Ref + "]" + after
		}
	}
	text := x86asm.IntelSyntax(inst, uint64(line.Addr), nil)
	// The printer shows 64-bit immediates as signed; addresses read better without.
	if reg, imm, ok := strings.Cut(text, ", -0x"); ok {
		if v, err := strconv.ParseUint(imm, 16, 63); err == nil {
			text = fmt.Sprintf("%s, %#x", reg, -v)
		}
	}
	return text
}

// resolve replaces {name} in text by the value of name.
func resolve(text string, l *emit.Linked, consts map[string]uint64) string {
	return os.Expand(strings.ReplaceAll(text, "{", "${"), func(name string) string {
		if v, ok := consts[name]; ok {
			return fmt.Sprintf("%#x", v)
		}
		if v, ok := l.Labels[name]; ok {
			return fmt.Sprintf("%#x", v)
		}
		return "{" + name + " is not defined}"
	})
}
