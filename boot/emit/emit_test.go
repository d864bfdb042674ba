package emit

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReferences(t *testing.T) {
	p := New(0x1000, 32)
	p.Label("top")
	p.OpRef("jmp bottom", []byte{0xeb}, Rel8, "bottom")
	p.OpRef("mov eax, {data}", []byte{0xb8}, Addr32, "data")
	p.OpRef("far", []byte{0x66, 0xea}, Off16, "data", 8, 0)
	p.Label("bottom")
	p.OpRef("jmp top", []byte{0xeb}, Rel8, "top")
	p.Align(16)
	p.Data("data", 1, 2, 3)
	p.DataRef("ptr", []byte{9}, "top")
	l, err := p.Link()
	require.NoError(t, err)
	require.Equal(t, []byte{
		0xeb, 11, 0xb8, 0x10, 0x10, 0, 0, 0x66, 0xea, 0x10, 0, 8, 0, 0xeb, 0xf1, 0,
		1, 2, 3, 9, 0, 0x10, 0, 0,
	}, l.Code)
	require.Equal(t, uint32(0x1010), l.Labels["data"])
	require.Equal(t, Line{Addr: 0x100d, Len: 2, Bits: 32, Text: "jmp top", Ref: "top"}, l.Lines[3])
}

func TestFarReferences(t *testing.T) {
	p := New(0x2000, 64)
	p.LabelAt("page", 0x1000)
	p.OpRef("lea r8, ptr [page]", []byte{0x4c, 0x8d, 0x05}, Rel32, "page")
	p.OpRef("call end", []byte{0xe8}, Rel32, "end")
	p.Data("pad", make([]byte, 200)...)
	p.Label("end")
	l, err := p.Link()
	require.NoError(t, err)
	require.Equal(t, []byte{0x4c, 0x8d, 0x05, 0xf9, 0xef, 0xff, 0xff, 0xe8, 200, 0, 0, 0}, l.Code[:12])
	require.EqualValues(t, 0x1000, l.Labels["page"])

	p.OpRef("lgdt", []byte{0x0f}, Off16, "page")
	_, err = p.Link()
	require.ErrorContains(t, err, "outside its 64 KiB segment")
}

func TestLinkErrors(t *testing.T) {
	p := New(0, 16)
	p.OpRef("jmp x", []byte{0xeb}, Rel8, "x")
	_, err := p.Link()
	require.ErrorContains(t, err, "label x is not defined")

	p.Data("pad", make([]byte, 200)...)
	p.Label("x")
	_, err = p.Link()
	require.ErrorContains(t, err, "label x is 200 bytes away")

	p.Label("x")
	_, err = p.Link()
	require.ErrorContains(t, err, "label x defined twice")

	p = New(0, 16)
	p.OpRef("lgdt", []byte{0x0f}, Off16, "far")
	p.Data("pad", make([]byte, 1<<16)...)
	p.Label("far")
	_, err = p.Link()
	require.ErrorContains(t, err, "outside its 64 KiB segment")
}
