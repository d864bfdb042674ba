package info

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Args is a parsed command line. Its grammar:
//
//	line  = { space } [ word { space word } ]
//	word  = key [ "=" value ]
//	key   = 1 to 64 of a-z A-Z 0-9 _ - .
//	value = { any byte but space, quote and backslash | quoted }
//	quoted = '"' { any byte but quote and backslash | '\"' | '\\' } '"'
//
// A key stands at most once. Control characters are not accepted anywhere.
type Args struct {
	words []arg // in the order of the line
}

type arg struct {
	key, value string
	has        bool // has a "="
}

// ArgError is what is wrong with a command line.
type ArgError struct {
	Key    string // "" if the line cannot be split
	Offset int    // byte in the line, -1 if it is the value that is wrong
	Msg    string
}

func (e *ArgError) Error() string {
	switch {
	case e.Offset < 0:
		return fmt.Sprintf("command line: %s: %s", e.Key, e.Msg)
	case e.Key == "":
		return fmt.Sprintf("command line: byte %d: %s", e.Offset, e.Msg)
	}
	return fmt.Sprintf("command line: byte %d: %s: %s", e.Offset, e.Key, e.Msg)
}

const maxKey = 64

// ParseArgs parses a command line.
func ParseArgs(line string) (*Args, error) {
	for i := range len(line) {
		if c := line[i]; c < ' ' && c != '\t' || c == 0x7f {
			return nil, &ArgError{"", i, fmt.Sprintf("control character %#02x", c)}
		}
	}
	a := &Args{}
	for at := 0; ; {
		for at < len(line) && isSpace(line[at]) {
			at++
		}
		if at == len(line) {
			return a, nil
		}
		w, end, err := parseWord(line, at)
		if err != nil {
			return nil, err
		}
		if _, dup := a.find(w.key); dup {
			return nil, &ArgError{w.key, at, "given twice"}
		}
		a.words = append(a.words, w)
		at = end
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func isKey(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// parseWord parses the word that starts at line[at] and returns where it ends.
func parseWord(line string, at int) (w arg, end int, err error) {
	i := at
	for i < len(line) && isKey(line[i]) {
		i++
	}
	switch w.key = line[at:i]; {
	case i == at:
		return w, 0, &ArgError{"", at, fmt.Sprintf("a key cannot start with %q: want letters, digits, _, - and .", line[at])}
	case len(w.key) > maxKey:
		return w, 0, &ArgError{"", at, fmt.Sprintf("key of %d bytes, want at most %d", len(w.key), maxKey)}
	case i == len(line) || isSpace(line[i]):
		return w, i, nil
	case line[i] != '=':
		return w, 0, &ArgError{w.key, i, fmt.Sprintf("%q after the key: want a space or =", line[i])}
	}
	w.has = true
	var value []byte
	quoted, open := false, 0
	for i++; i < len(line) && (quoted || !isSpace(line[i])); i++ {
		switch c := line[i]; {
		case c == '"':
			quoted, open = !quoted, i
		case c == '\\' && quoted && i+1 < len(line) && (line[i+1] == '"' || line[i+1] == '\\'):
			i++
			value = append(value, line[i])
		case c == '\\':
			return w, 0, &ArgError{w.key, i, `stray backslash: only \" and \\ are known, inside quotes`}
		default:
			value = append(value, c)
		}
	}
	if quoted {
		return w, 0, &ArgError{w.key, open, "quote is not closed"}
	}
	w.value = string(value)
	return w, i, nil
}

func (a *Args) find(key string) (arg, bool) {
	for _, w := range a.words {
		if w.key == key {
			return w, true
		}
	}
	return arg{}, false
}

// Keys returns the keys in the order of the line.
func (a *Args) Keys() []string {
	keys := make([]string, len(a.words))
	for i, w := range a.words {
		keys[i] = w.key
	}
	return keys
}

// Known returns an error that names the first key which is not among known.
func (a *Args) Known(known ...string) error {
	for _, w := range a.words {
		if !slices.Contains(known, w.key) {
			k := slices.Sorted(slices.Values(known))
			return &ArgError{w.key, -1, "unknown key; known are " + strings.Join(k, ", ")}
		}
	}
	return nil
}

// Has reports whether key is given, with or without a value.
func (a *Args) Has(key string) bool {
	_, ok := a.find(key)
	return ok
}

// String returns the value of key, or def if key is not given.
func (a *Args) String(key, def string) (string, error) {
	w, ok := a.find(key)
	switch {
	case !ok:
		return def, nil
	case !w.has:
		return "", &ArgError{key, -1, "needs a value: " + key + "=..."}
	}
	return w.value, nil
}

// Bool returns whether key is set: given alone or with 1, true, on or yes; unset with 0, false, off or no, and when not
// given.
func (a *Args) Bool(key string) (bool, error) {
	w, ok := a.find(key)
	if !ok || !w.has {
		return ok, nil
	}
	switch w.value {
	case "1", "true", "on", "yes":
		return true, nil
	case "0", "false", "off", "no":
		return false, nil
	}
	return false, &ArgError{key, -1, fmt.Sprintf("%q, want 1, true, on, yes or 0, false, off, no", w.value)}
}

// Uint returns the value of key as a number of at least lo and at most hi, decimal or with 0x, or def if key is not given.
func (a *Args) Uint(key string, def, lo, hi uint64) (uint64, error) {
	return a.number(key, def, lo, hi, "", func(s string) (uint64, error) { return strconv.ParseUint(s, 0, 64) })
}

// Size is like Uint for a number of bytes, which may end in K, M, G or T (powers of 1024).
func (a *Args) Size(key string, def, lo, hi uint64) (uint64, error) {
	return a.number(key, def, lo, hi, " bytes, with K, M, G or T", func(s string) (uint64, error) {
		shift := 0
		if s != "" {
			if k := strings.IndexByte("KMGT", s[len(s)-1]); k >= 0 {
				s, shift = s[:len(s)-1], 10*(k+1)
			}
		}
		v, err := strconv.ParseUint(s, 0, 64)
		if err == nil && v<<shift>>shift != v {
			err = strconv.ErrRange
		}
		return v << shift, err
	})
}

func (a *Args) number(key string, def, lo, hi uint64, unit string, parse func(string) (uint64, error)) (uint64, error) {
	if !a.Has(key) {
		return def, nil
	}
	s, err := a.String(key, "")
	if err != nil {
		return 0, err
	}
	v, err := parse(s)
	if err != nil || v < lo || v > hi {
		return 0, &ArgError{key, -1, fmt.Sprintf("%q, want a number from %d to %d%s", s, lo, hi, unit)}
	}
	return v, nil
}

// Duration returns the value of key as time.ParseDuration reads it, not negative, or def if key is not given.
func (a *Args) Duration(key string, def time.Duration) (time.Duration, error) {
	if !a.Has(key) {
		return def, nil
	}
	s, err := a.String(key, "")
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, &ArgError{key, -1, fmt.Sprintf("%q, want a duration like 1.5s or 200ms", s)}
	}
	return d, nil
}
