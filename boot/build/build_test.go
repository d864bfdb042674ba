package build

import (
	"context"
	"debug/elf"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/boot/image"
	"dinos/boot/record"
)

func TestKernel(t *testing.T) {
	out := filepath.Join(t.TempDir(), "k.elf")
	opt := Options{Package: "./testdata/kernel", Dir: "../image", Entry: "entry64", Image: image.Options{Record: "main.Record"}}
	require.NoError(t, Kernel(context.Background(), opt, out))
	f, err := elf.Open(out)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, record.LinkAddress, f.Section(".text").Addr)
	require.Equal(t, elf.PT_NOTE, f.Progs[0].Type)

	left, err := os.ReadDir(filepath.Dir(out))
	require.NoError(t, err)
	require.Len(t, left, 1, "only the image stays")
}

func TestKernelErrors(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "k.elf")
	good := Options{Package: "./testdata/kernel", Dir: "../image", Entry: "entry64", Image: image.Options{Record: "main.Record"}}
	for _, c := range []struct {
		name string
		edit func(*Options)
		want string
	}{
		{"no package", func(o *Options) { o.Package = "" }, "no package"},
		{"unknown package", func(o *Options) { o.Package = "./testdata/none" }, "testdata/none"},
		{"unknown entry", func(o *Options) { o.Entry = "nothing" }, "nothing"},
		{"no record", func(o *Options) { o.Image.Record = "" }, "no symbol dinos/boot/stub.Record"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := good
			c.edit(&opt)
			require.ErrorContains(t, Kernel(context.Background(), opt, out), c.want)
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
	require.Error(t, Kernel(context.Background(), good, filepath.Join(dir, "none", "k.elf")))
}
