package vm

import (
	"debug/elf"
	"debug/gosym"
	"fmt"
	"path/filepath"
)

// Symbols resolves code addresses of a Go ELF file. A nil *Symbols resolves none.
type Symbols struct {
	table      *gosym.Table
	start, end uint64 // of the text
}

// OpenSymbols reads the line table of the ELF file at path.
func OpenSymbols(path string) (s *Symbols, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, lines := f.Section(".text"), f.Section(".gopclntab")
	if text == nil || lines == nil {
		return nil, fmt.Errorf("%s has no .text and .gopclntab: want a Go kernel", path)
	}
	b, err := lines.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(b, text.Addr))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Symbols{table, text.Addr, text.Addr + text.Size}, nil
}

// IsCode reports whether pc lies in the text.
func (s *Symbols) IsCode(pc uint64) bool { return s != nil && pc > s.start && pc < s.end }

// Name describes the code at pc as "function+offset file:line", or returns "?".
func (s *Symbols) Name(pc uint64) string {
	if !s.IsCode(pc) {
		return "?"
	}
	file, line, fn := s.table.PCToLine(pc)
	if fn == nil {
		return "?"
	}
	return fmt.Sprintf("%s+%#x %s:%d", fn.Name, pc-fn.Entry, filepath.Base(file), line)
}
