// Package emit assembles the few short machine-code sequences that must exist before Go code can run: the
// trampolines of boot/image and boot/realmode. One call is one instruction, its bytes beside its mnemonic.
//
// The mnemonic is not a comment that can grow stale: it is written as golang.org/x/arch/x86/x86asm prints Intel
// syntax, and the tests of both users disassemble the linked code and compare every line ([Line]).
// In a mnemonic {label} stands for the number that a reference to that label assembles to.
package emit

import (
	"encoding/binary"
	"fmt"
)

// Kind says how a reference to a label is encoded.
type Kind uint8

const (
	// Rel8 is the distance from the end of the instruction, in one byte.
	Rel8 Kind = iota
	// Off16 is the offset from the origin, in two bytes: an address in the segment that starts there.
	Off16
	// Addr32 is the linear address, in four bytes.
	Addr32
	// Rel32 is the distance from the end of the instruction, in four bytes: a jump, or memory addressed by RIP.
	Rel32
)

var width = [...]int{Rel8: 1, Off16: 2, Addr32: 4, Rel32: 4}

// Line is one assembled instruction or datum.
type Line struct {
	Addr uint32 // linear address
	Len  int    // bytes
	Bits int    // 16, 32 or 64: the mode it runs in; 0 for data
	Text string // mnemonic or the datum's name, references as written
	Ref  string // the label it refers to, "" if none
}

type fixup struct {
	at   int // index in code of the reference
	end  int // index in code of the next instruction
	kind Kind
	ref  string
}

// Program is a sequence of instructions under construction. It is not safe for concurrent use.
type Program struct {
	org    uint32
	bits   int
	code   []byte
	lines  []Line
	labels map[string]int
	fixups []fixup
	err    error
}

// New returns an empty program that will be placed at linear address org and starts in a mode of bits (16, 32 or 64).
func New(org uint32, bits int) *Program {
	return &Program{org: org, bits: bits, labels: make(map[string]int)}
}

// Bits sets the mode that the following instructions run in.
func (p *Program) Bits(n int) { p.bits = n }

// Reg is the name of a register in its natural width for the current mode: ax is ax, eax or rax. It
// serves instructions whose bytes are the same in several modes.
func (p *Program) Reg(name string) string {
	return map[int]string{16: "", 32: "e", 64: "r"}[p.bits] + name
}

// Label names the address of what follows.
func (p *Program) Label(name string) {
	if _, dup := p.labels[name]; dup && p.err == nil {
		p.err = fmt.Errorf("emit: label %s defined twice", name)
	}
	p.labels[name] = len(p.code)
}

// LabelAt names an address outside of the program.
func (p *Program) LabelAt(name string, addr uint32) {
	p.Label(name)
	p.labels[name] = int(int64(addr) - int64(p.org))
}

// Op appends an instruction.
func (p *Program) Op(text string, code ...byte) {
	p.add(p.bits, text, "", code)
}

// OpRef appends an instruction that refers to a label: code, the encoded reference, tail.
func (p *Program) OpRef(text string, code []byte, kind Kind, label string, tail ...byte) {
	at := len(p.code) + len(code)
	b := make([]byte, 0, 16)
	b = append(b, code...)
	b = append(b, make([]byte, width[kind])...)
	b = append(b, tail...)
	p.add(p.bits, text, label, b)
	p.fixups = append(p.fixups, fixup{at, len(p.code), kind, label})
}

// Data appends bytes that are not instructions, under a label.
func (p *Program) Data(label string, b ...byte) {
	p.Label(label)
	p.add(0, label, "", b)
}

// DataRef appends a datum that ends in the linear address of another label.
func (p *Program) DataRef(label string, b []byte, ref string) {
	p.Label(label)
	at := len(p.code) + len(b)
	p.add(0, label, ref, append(append([]byte(nil), b...), 0, 0, 0, 0))
	p.fixups = append(p.fixups, fixup{at, len(p.code), Addr32, ref})
}

// Align appends zero bytes up to a multiple of n.
func (p *Program) Align(n int) {
	for len(p.code)%n != 0 {
		p.code = append(p.code, 0)
	}
}

func (p *Program) add(bits int, text, ref string, b []byte) {
	p.lines = append(p.lines, Line{
		Addr: p.org + uint32(len(p.code)), Len: len(b), Bits: bits, Text: text, Ref: ref,
	})
	p.code = append(p.code, b...)
}

// Linked is a finished program.
type Linked struct {
	Org    uint32
	Code   []byte
	Lines  []Line
	Labels map[string]uint32 // linear addresses
}

// Link resolves the references.
func (p *Program) Link() (*Linked, error) {
	if p.err != nil {
		return nil, p.err
	}
	for _, f := range p.fixups {
		to, ok := p.labels[f.ref]
		if !ok {
			return nil, fmt.Errorf("emit: label %s is not defined", f.ref)
		}
		switch f.kind {
		case Rel8:
			d := to - f.end
			if d < -128 || d > 127 {
				return nil, fmt.Errorf("emit: label %s is %d bytes away, a short jump reaches -128 to 127", f.ref, d)
			}
			p.code[f.at] = byte(d)
		case Off16:
			if to < 0 || to > 0xffff {
				return nil, fmt.Errorf("emit: label %s at offset %#x is outside its 64 KiB segment", f.ref, to)
			}
			binary.LittleEndian.PutUint16(p.code[f.at:], uint16(to))
		case Rel32:
			binary.LittleEndian.PutUint32(p.code[f.at:], uint32(to-f.end))
		case Addr32:
			binary.LittleEndian.PutUint32(p.code[f.at:], p.org+uint32(to))
		}
	}
	l := &Linked{Org: p.org, Code: p.code, Lines: p.lines, Labels: make(map[string]uint32, len(p.labels))}
	for name, off := range p.labels {
		l.Labels[name] = p.org + uint32(off)
	}
	return l, nil
}

// Imm32 appends v in little-endian order to code.
func Imm32(v uint32, code ...byte) []byte { return binary.LittleEndian.AppendUint32(code, v) }

// Imm64 appends v in little-endian order to code.
func Imm64(v uint64, code ...byte) []byte { return binary.LittleEndian.AppendUint64(code, v) }
