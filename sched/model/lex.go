package model

import (
	"fmt"
	"strings"
)

// Error is a fault in a policy's text: where, what, and what would be right.
type Error struct {
	Policy string // name of the policy or file
	Pos    Pos
	Msg    string
	Hint   string // what would be right; may be empty
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.Policy, e.Pos.Line, e.Pos.Col, e.Msg)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Limits of a policy's text. They keep a hostile or broken file from exhausting the control kernel.
const (
	MaxText       = 64 << 10 // bytes
	MaxStatements = 128
	MaxDepth      = 48      // nesting of expressions and subqueries
	MaxLiteral    = 1 << 20 // largest number that may be written
	MaxName       = 64      // bytes of an identifier
	MaxTables     = 16      // tables of one statement, subqueries included
)

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokIdent
	tokKeyword
	tokNumber
	tokText
	tokOp
)

type token struct {
	kind tokenKind
	text string // lower case for identifiers and keywords
	num  int64
	pos  Pos
	off  int // byte offset of the first byte
	end  int // byte offset after the last
}

func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "the end of the text"
	case tokText:
		return "'" + t.text + "'"
	}
	return fmt.Sprintf("%q", t.text)
}

func isKeyword(s string) bool {
	switch s {
	case "create", "view", "constraint", "as", "select", "from", "join", "inner", "on", "where", "group", "by",
		"having", "check", "maximize", "minimize", "tier", "and", "or", "not", "in", "exists", "distinct",
		"true", "false", "between":
		return true
	}
	return false
}

// lexer cuts a policy's text into tokens, one at a time.
type lexer struct {
	name string
	src  string
	off  int
	line int
	bol  int // offset of the beginning of the line
}

func (l *lexer) pos() Pos { return Pos{l.line, l.off - l.bol + 1} }

func (l *lexer) fail(p Pos, hint, format string, args ...any) error {
	return &Error{Policy: l.name, Pos: p, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func (l *lexer) skipSpace() {
	for l.off < len(l.src) {
		switch c := l.src[l.off]; {
		case c == '\n':
			l.off++
			l.line++
			l.bol = l.off
		case c == ' ' || c == '\t' || c == '\r':
			l.off++
		case c == '-' && strings.HasPrefix(l.src[l.off:], "--"):
			for l.off < len(l.src) && l.src[l.off] != '\n' {
				l.off++
			}
		default:
			return
		}
	}
}

func isLetter(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func (l *lexer) next() (token, error) {
	l.skipSpace()
	t := token{pos: l.pos(), off: l.off, end: l.off}
	if l.off >= len(l.src) {
		return t, nil
	}
	start := l.off
	switch c := l.src[l.off]; {
	case isLetter(c):
		for l.off < len(l.src) && (isLetter(l.src[l.off]) || isDigit(l.src[l.off])) {
			l.off++
		}
		t.text = strings.ToLower(l.src[start:l.off])
		t.kind = tokIdent
		if len(t.text) > MaxName {
			return t, l.fail(t.pos, fmt.Sprintf("names have at most %d bytes", MaxName), "name of %d bytes", len(t.text))
		}
		if isKeyword(t.text) {
			t.kind = tokKeyword
		}
	case isDigit(c):
		t.kind = tokNumber
		for l.off < len(l.src) && isDigit(l.src[l.off]) {
			if t.num <= MaxLiteral {
				t.num = t.num*10 + int64(l.src[l.off]-'0')
			}
			l.off++
		}
		t.text = l.src[start:l.off]
		if t.num > MaxLiteral {
			return t, l.fail(t.pos, fmt.Sprintf("the largest number is %d", MaxLiteral), "number %.40s is too large", t.text)
		}
		if l.off < len(l.src) && (isLetter(l.src[l.off]) || l.src[l.off] == '.') {
			return t, l.fail(t.pos, "numbers are whole and decimal", "malformed number")
		}
	case c == '\'':
		return l.quoted(t)
	default:
		return l.operator(t)
	}
	t.end = l.off
	return t, nil
}

func (l *lexer) quoted(t token) (token, error) {
	rest := l.src[l.off+1:]
	n := strings.IndexByte(rest, '\'')
	if n < 0 || strings.IndexByte(rest[:n], '\n') >= 0 {
		return t, l.fail(t.pos, "a text ends with ' on its line", "text without an end")
	}
	t.kind, t.text = tokText, rest[:n]
	l.off += n + 2
	t.end = l.off
	return t, nil
}

func (l *lexer) operator(t token) (token, error) {
	t.kind = tokOp
	for _, op := range [...]string{"<=", ">=", "<>", "!=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ",", ".", ";"} {
		if strings.HasPrefix(l.src[l.off:], op) {
			l.off += len(op)
			t.text, t.end = op, l.off
			if op == "!=" {
				t.text = "<>"
			}
			return t, nil
		}
	}
	return t, l.fail(t.pos, "", "unexpected character %q", l.src[l.off])
}
