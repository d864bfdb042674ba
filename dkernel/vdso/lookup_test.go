package vdso

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/kernel/linux"
)

func trimPrefix(name string) string { return strings.TrimPrefix(name, "__vdso_") }

// view is what a C library or the Go runtime knows of the vDSO: its address, from which it finds everything by program headers.
type view struct {
	mem []byte
	dyn map[uint64]uint64
}

func look(t *testing.T, mem []byte) *view {
	u16, u32, u64 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	v := &view{mem, map[uint64]uint64{}}
	ph := mem[u64(mem[32:]):]
	base, found := uint64(0), false
	for i := range u16(mem[56:]) {
		p := ph[int(i)*56:]
		switch u32(p) {
		case linux.PT_LOAD:
			base, found = u64(p[8:])-u64(p[16:]), true
		case linux.PT_DYNAMIC:
			for d := mem[u64(p[8:]):]; u64(d) != 0; d = d[16:] {
				v.dyn[u64(d)] = u64(d[8:])
			}
		}
	}
	require.True(t, found)
	require.Zero(t, base)
	for _, tag := range []uint64{dtStrtab, dtSymtab, dtHash, dtGNUHash, dtVersym, dtVerdef} {
		require.NotZero(t, v.dyn[tag], "%#x", tag)
	}
	return v
}

func (v *view) word(at uint64) uint32 { return binary.LittleEndian.Uint32(v.mem[at:]) }

func (v *view) str(at uint64) string {
	s, _, _ := strings.Cut(string(v.mem[v.dyn[dtStrtab]+at:]), "\x00")
	return s
}

// symbol checks symbol i for being the wanted function, as all three do.
func (v *view) symbol(i uint32, name, version string) (uint64, bool) {
	s := v.mem[v.dyn[dtSymtab]+24*uint64(i):]
	if s[4]&15 != sttFunc || s[4]>>4 != stbGlobal && s[4]>>4 != stbWeak || binary.LittleEndian.Uint16(s[6:]) == 0 {
		return 0, false
	}
	if v.str(uint64(binary.LittleEndian.Uint32(s))) != name || !v.version(i, version) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(s[8:]), true
}

// version finds the definition of the symbol's version and compares name and hash (musl's checkver, Go's vdsoFindVersion).
func (v *view) version(i uint32, want string) bool {
	index := binary.LittleEndian.Uint16(v.mem[v.dyn[dtVersym]+2*uint64(i):]) & 0x7fff
	for def := v.dyn[dtVerdef]; ; {
		d := v.mem[def:]
		if binary.LittleEndian.Uint16(d[2:])&1 == 0 && binary.LittleEndian.Uint16(d[4:])&0x7fff == index {
			aux := uint64(v.word(def + 12))
			return v.word(def+8) == elfHash(want) && v.str(uint64(v.word(def+aux))) == want
		}
		next := uint64(v.word(def + 16))
		if next == 0 {
			return false
		}
		def += next
	}
}

// sysv looks a name up as musl does, linearly by the count in DT_HASH, and as the Go runtime does, along the chain.
func (v *view) sysv(name, version string) (linear, chained uint64) {
	table := v.dyn[dtHash]
	buckets, n := v.word(table), v.word(table+4)
	for i := range n {
		if addr, ok := v.symbol(i, name, version); ok {
			linear = addr
		}
	}
	chain := table + 8 + 4*uint64(buckets)
	for i := v.word(table + 8 + 4*uint64(elfHash(name)%buckets)); i != 0; i = v.word(chain + 4*uint64(i)) {
		if addr, ok := v.symbol(i, name, version); ok {
			chained = addr
		}
	}
	return linear, chained
}

// gnu looks a name up as glibc does.
func (v *view) gnu(name, version string) uint64 {
	table := v.dyn[dtGNUHash]
	buckets, offset, words, shift := v.word(table), v.word(table+4), v.word(table+8), v.word(table+12)
	h := uint32(5381)
	for _, c := range []byte(name) {
		h = h*33 + uint32(c)
	}
	bloom := binary.LittleEndian.Uint64(v.mem[table+16+8*uint64(h/64%words):])
	if bloom>>(h%64)&1 == 0 || bloom>>(h>>shift%64)&1 == 0 {
		return 0
	}
	bucket := table + 16 + 8*uint64(words)
	i := v.word(bucket + 4*uint64(h%buckets))
	if i < offset {
		return 0
	}
	for chain := bucket + 4*uint64(buckets); ; i++ {
		c := v.word(chain + 4*uint64(i-offset))
		if c|1 == h|1 {
			if addr, ok := v.symbol(i, name, version); ok {
				return addr
			}
		}
		if c&1 != 0 {
			return 0
		}
	}
}

func TestLookup(t *testing.T) {
	img, err := New(CPUFromRDTSCP)
	require.NoError(t, err)
	v := look(t, img.Bytes)
	for name, addr := range img.Symbols {
		for _, n := range []string{name, "__vdso_" + name} {
			linear, chained := v.sysv(n, "LINUX_2.6")
			require.EqualValues(t, addr, linear, n)
			require.EqualValues(t, addr, chained, n)
			require.EqualValues(t, addr, v.gnu(n, "LINUX_2.6"), n)
		}
		linear, chained := v.sysv(name, "LINUX_2.5")
		require.Zero(t, linear+chained+v.gnu(name, "LINUX_2.5"))
	}
	for _, n := range []string{"__vdso_getrandom", "", "linux-vdso.so.1", "LINUX_2.6"} {
		linear, chained := v.sysv(n, "LINUX_2.6")
		require.Zero(t, linear+chained+v.gnu(n, "LINUX_2.6"), n)
	}
}
