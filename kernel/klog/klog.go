// Package klog formats console lines without allocating, for kernel code and for a machine that is dying.
package klog

// Line is a line under construction. What does not fit is cut and the cut is marked. The zero Line is empty.
type Line struct {
	buf [240]byte
	n   int
}

// Bytes returns the text. It is valid until the next call on l.
func (l *Line) Bytes() []byte { return l.buf[:l.n] }

// Reset empties l.
func (l *Line) Reset() *Line { l.n = 0; return l }

// Byte appends one byte.
func (l *Line) Byte(c byte) *Line {
	if l.n == len(l.buf) {
		copy(l.buf[l.n-3:], "...")
		return l
	}
	l.buf[l.n] = c
	l.n++
	return l
}

// Str appends s.
func (l *Line) Str(s string) *Line {
	for i := range len(s) {
		l.Byte(s[i])
	}
	return l
}

// Hex appends v as 0x and the digits it needs.
func (l *Line) Hex(v uint64) *Line {
	l.Str("0x")
	n := 4
	for n < 64 && v>>n != 0 {
		n += 4
	}
	return l.digits(v, n)
}

// Hex64 appends v as 16 hexadecimal digits without 0x, for columns.
func (l *Line) Hex64(v uint64) *Line { return l.digits(v, 64) }

// Hex8 appends v as two hexadecimal digits.
func (l *Line) Hex8(v uint8) *Line { return l.digits(uint64(v), 8) }

func (l *Line) digits(v uint64, bits int) *Line {
	for bits -= 4; bits >= 0; bits -= 4 {
		l.Byte("0123456789abcdef"[v>>bits&15])
	}
	return l
}

// Dec appends v in decimal.
func (l *Line) Dec(v uint64) *Line {
	var d [20]byte
	i := len(d)
	for {
		i--
		d[i] = byte('0' + v%10)
		if v /= 10; v == 0 {
			break
		}
	}
	for ; i < len(d); i++ {
		l.Byte(d[i])
	}
	return l
}

// Int appends v in decimal with its sign.
func (l *Line) Int(v int64) *Line {
	if v < 0 {
		l.Byte('-')
		return l.Dec(uint64(-v))
	}
	return l.Dec(uint64(v))
}

// Size appends a number of bytes in the largest binary unit that leaves no fraction.
func (l *Line) Size(v uint64) *Line {
	units := [...]string{" B", " KiB", " MiB", " GiB", " TiB"}
	i := 0
	for i < len(units)-1 && v != 0 && v%1024 == 0 {
		v /= 1024
		i++
	}
	return l.Dec(v).Str(units[i])
}
