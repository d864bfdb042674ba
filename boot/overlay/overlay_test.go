package overlay

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// write makes a tree of files, contents being their own names, and returns its root.
func write(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(name), 0o644))
	}
	return root
}

func TestGenerate(t *testing.T) {
	goroot := write(t, "src/runtime/proc.go")
	tree := write(t, "runtime/extra.go", "runtime/goos/goos.go")
	b, err := Generate(tree, goroot)
	require.NoError(t, err)
	var got struct{ Replace map[string]string }
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, map[string]string{
		filepath.Join(goroot, "src/runtime/extra.go"):     filepath.Join(tree, "runtime/extra.go"),
		filepath.Join(goroot, "src/runtime/goos/goos.go"): filepath.Join(tree, "runtime/goos/goos.go"),
	}, got.Replace)
}

func TestGenerateRefuses(t *testing.T) {
	goroot := write(t, "src/runtime/proc.go")
	for _, c := range []struct {
		name, tree, goroot, want string
	}{
		{"replacement", write(t, "runtime/proc.go"), goroot, "would replace"},
		{"other file", write(t, "runtime/README"), goroot, "is not a Go or assembly source file"},
		{"test file", write(t, "runtime/x_test.go"), goroot, "is not a Go or assembly source file"},
		{"no distribution", write(t, "runtime/x.go"), t.TempDir(), "is no Go distribution"},
		{"empty", t.TempDir(), goroot, "no files"},
		{"missing", filepath.Join(t.TempDir(), "none"), goroot, "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Generate(c.tree, c.goroot)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// TestDrivers type-checks, with the overlay, the driver packages that it is made for: they build with it and some not without.
func TestDrivers(t *testing.T) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	b, err := Generate(Dir, strings.TrimSpace(string(goroot)))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "overlay.json")
	require.NoError(t, os.WriteFile(path, b, 0o644))
	build := func(flags ...string) (string, error) {
		const tamago = "github.com/usbarmory/tamago/"
		args := append([]string{"build"}, flags...)
		out, err := exec.Command("go", append(args, tamago+"dma", tamago+"soc/intel/pci", tamago+"kvm/virtio")...).CombinedOutput()
		return string(out), err
	}
	out, err := build("-overlay", path)
	require.NoError(t, err, out)
	out, err = build()
	require.Error(t, err)
	require.Contains(t, out, "runtime/goos is not in std")
}
