package loader

import (
	"bytes"

	"dinos/kernel/linux"
)

// blank reports whether c separates words on the first line of a script.
func blank(c byte) bool { return c == ' ' || c == '\t' }

// skipBlanks returns the first index in [from, to] of head that is no blank, -1 if there is none.
func skipBlanks(head *[headSize]byte, from, to int) int {
	for ; from <= to; from++ {
		if !blank(head[from]) {
			return from
		}
	}
	return -1
}

// skipWord returns the first index in [from, to] of head that is a blank or zero, -1 if there is none.
func skipWord(head *[headSize]byte, from, to int) int {
	for ; from <= to; from++ {
		if blank(head[from]) || head[from] == 0 {
			return from
		}
	}
	return -1
}

// cString is the string at from that ends at a zero byte, or at to.
func cString(head *[headSize]byte, from, to int) string {
	s := head[from:to]
	if i := bytes.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	return string(s)
}

// parseScript reads "#!interpreter argument" from the first bytes of a script as Linux does, in all its corners: blanks around
// both are dropped, the argument is one string whatever is in it and may be cut off at the end of head, the interpreter's path may
// not. head starts with "#!".
func parseScript(path string, head *[headSize]byte) (interp, arg string, hasArg bool, err error) {
	const last = headSize - 1
	end := bytes.IndexByte(head[:], '\n')
	if zero := bytes.IndexByte(head[:], 0); zero >= 0 && zero < end {
		end = -1
	}
	if end < 0 {
		name := skipBlanks(head, 2, last)
		if name < 0 || skipWord(head, name, last) < 0 {
			return "", "", false, fail(linux.ENOEXEC, path, "the path of its interpreter, after #!, does not end within %d bytes", headSize)
		}
		end = last
	}
	for blank(head[end-1]) {
		end--
	}
	name := skipBlanks(head, 2, end)
	if name < 0 || name == end {
		return "", "", false, fail(linux.ENOEXEC, path, "there is no interpreter after #!")
	}
	if sep := skipWord(head, name, end); sep >= 0 && head[sep] != 0 {
		if a := skipBlanks(head, sep, end); a >= 0 {
			return cString(head, name, sep), cString(head, a, end), true, nil
		}
	}
	return cString(head, name, end), "", false, nil
}
