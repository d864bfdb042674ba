// Package rootfs makes archives (cpio, SVR4 "newc") of root directories for programs: of a directory of the host, or with busybox.
package rootfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cavaliergopher/cpio"
)

// FromDir writes the contents of a directory to w. Who owns them is not kept: root does. Sockets and device files are left out.
func FromDir(w io.Writer, dir string) error {
	a := cpio.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || rel == "." {
			return err
		}
		return add(a, rel, name)
	})
	if err != nil {
		return err
	}
	return a.Close()
}

// add adds a file of the host under a name.
func add(a *cpio.Writer, as, name string) error {
	st, err := os.Lstat(name)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	h := &cpio.Header{Name: filepath.ToSlash(as), Mode: cpio.FileMode(sys.Mode), ModTime: st.ModTime(), Links: 1}
	switch st.Mode().Type() {
	case fs.ModeDir, fs.ModeNamedPipe:
		return a.WriteHeader(h)
	case fs.ModeSymlink:
		to, err := os.Readlink(name)
		if err != nil {
			return err
		}
		h.Mode = cpio.TypeSymlink | 0o777
		return addText(a, h, to)
	case 0:
		return addContents(a, h, name, st.Size())
	}
	return nil
}

// addText adds a file with contents that are known. The library takes the target of a symbolic link for contents, as the format does.
func addText(a *cpio.Writer, h *cpio.Header, text string) error {
	h.Size = int64(len(text))
	if err := a.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(a, text)
	return err
}

func addContents(a *cpio.Writer, h *cpio.Header, name string, size int64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Size = size
	if err := a.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.CopyN(a, f, size); err != nil {
		return fmt.Errorf("%s: it changed while it was read: %d bytes, want %d: %w", name, n, size, err)
	}
	return nil
}

// ErrNoBusybox: the host has no busybox that can be used.
var ErrNoBusybox = errors.New("no statically linked busybox (Debian's package busybox-static)")

// FindBusybox returns the path of the host's busybox. ErrNoBusybox.
func FindBusybox() (string, error) {
	name, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoBusybox, err)
	}
	f, err := elf.Open(name)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrNoBusybox, name, err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return "", fmt.Errorf("%w: %s is linked dynamically", ErrNoBusybox, name)
	}
	return name, nil
}

// accounts are the users that programs look for.
var accounts = [][2]string{
	{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
	{"etc/group", "root:x:0:\nnogroup:x:65534:\n"},
	{"etc/hosts", "127.0.0.1 localhost\n"},
}

// Busybox writes a root directory to w with busybox in /bin, under the names of all its applets.
func Busybox(w io.Writer, busybox string) error {
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", busybox, err)
	}
	a := cpio.NewWriter(w)
	for _, d := range []string{"bin", "etc", "root"} {
		if err := a.WriteHeader(&cpio.Header{Name: d, Mode: cpio.TypeDir | 0o755, Links: 1}); err != nil {
			return err
		}
	}
	for _, x := range accounts {
		if err := addText(a, &cpio.Header{Name: x[0], Mode: cpio.TypeReg | 0o644, Links: 1}, x[1]); err != nil {
			return err
		}
	}
	st, err := os.Stat(busybox)
	if err != nil {
		return err
	}
	if err := addContents(a, &cpio.Header{Name: "bin/busybox", Mode: cpio.TypeReg | 0o755, Links: 1, ModTime: st.ModTime()}, busybox, st.Size()); err != nil {
		return err
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet = path.Base(applet); applet == "busybox" {
			continue
		}
		if err := addText(a, &cpio.Header{Name: "bin/" + applet, Mode: cpio.TypeSymlink | 0o777, Links: 1}, "busybox"); err != nil {
			return err
		}
	}
	return a.Close()
}
