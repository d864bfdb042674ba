package rootfs

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/stretchr/testify/require"
)

// contents are the entries of an archive: type and permissions, then what is in it.
func contents(t *testing.T, data []byte) map[string]string {
	out := map[string]string{}
	for r := cpio.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		require.NoError(t, err)
		text := h.Linkname
		if text == "" {
			b, err := io.ReadAll(r)
			require.NoError(t, err)
			text = string(b)
		}
		out[h.Name] = h.FileInfo().Mode().String() + " " + text
		require.Zero(t, h.Uid)
	}
}

func TestFromDir(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a/b/f"), []byte("text"), 0o640))
	require.NoError(t, os.Chmod(filepath.Join(dir, "a"), 0o700))
	require.NoError(t, os.Symlink("../f", filepath.Join(dir, "a/l")))
	var b bytes.Buffer
	require.NoError(t, FromDir(&b, dir))
	require.Equal(t, map[string]string{"a": "drwx------ ", "a/b": "drwxr-xr-x ", "a/b/f": "-rw-r----- text", "a/l": "Lrwxrwxrwx ../f"}, contents(t, b.Bytes()))
	require.ErrorIs(t, FromDir(&b, filepath.Join(dir, "none")), os.ErrNotExist)
}

func TestBusybox(t *testing.T) {
	// A script does for the program that lists its applets.
	exe := filepath.Join(t.TempDir(), "busybox")
	require.NoError(t, os.WriteFile(exe, []byte("#!/bin/sh\necho busybox; echo sh; echo usr/bin/ls\n"), 0o755))
	var b bytes.Buffer
	require.NoError(t, Busybox(&b, exe))
	c := contents(t, b.Bytes())
	require.Contains(t, c["bin/busybox"], "-rwxr-xr-x #!/bin/sh")
	require.Equal(t, "Lrwxrwxrwx busybox", c["bin/sh"])
	require.Equal(t, "Lrwxrwxrwx busybox", c["bin/ls"])
	require.Contains(t, c["etc/passwd"], "root:x:0:0")
}
