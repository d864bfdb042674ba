package compat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// Builder gets programs: Debian packages are downloaded and unpacked, not installed; sources are built with the compilers of this
// machine. What it made is kept in Dir and made again when the description changes.
type Builder struct {
	Dir string // of the cache
	Log func(format string, args ...any)
}

// ErrUnavailable says that this machine lacks what a program is built with.
var ErrUnavailable = errors.New("not available here")

// Get returns the path of a static executable.
func (b *Builder) Get(ctx context.Context, p *Program) (string, error) {
	key, err := p.key()
	if err != nil {
		return "", err
	}
	out := filepath.Join(b.Dir, "programs", fmt.Sprintf("%s-%x", p.Name, key[:6]))
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	b.Log("getting %s", p.Name)
	tmp, err := os.MkdirTemp(b.Dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	made := filepath.Join(tmp, "out")
	switch p.Kind {
	case kindDeb:
		err = b.deb(ctx, tmp, p.Args[0], p.Args[1], made)
	case kindSource:
		err = b.source(ctx, tmp, p, made)
	case kindC:
		err = b.c(ctx, tmp, p, made)
	case kindGo:
		err = b.goProgram(ctx, tmp, p.Args[0], made)
	case kindGoTest:
		err = goTool(ctx, tmp, "test", "-c", "-o", made, p.Args[0])
	}
	if err != nil {
		return "", fmt.Errorf("compat: getting %s: %w", p.Name, err)
	}
	if err := static(made); err != nil {
		return "", fmt.Errorf("compat: %s: %w", p.Name, err)
	}
	return out, os.Rename(made, out)
}

// key is a hash of everything that the program is made from.
func (p *Program) key() ([32]byte, error) {
	text := fmt.Sprint(p.Kind, p.Args, p.Build, runtime.Version())
	if p.Kind == kindC || p.Kind == kindGo {
		src, err := files.ReadFile("testdata/" + p.Args[0])
		if err != nil {
			return [32]byte{}, err
		}
		text += string(src)
	}
	return sha256.Sum256([]byte(text)), nil
}

// command runs a tool. The error has the end of what it said.
func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%w: no %s", ErrUnavailable, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := out.String()
		return fmt.Errorf("%s %s: %w:\n%s", name, strings.Join(args, " "), err, text[max(0, len(text)-2000):])
	}
	return nil
}

// static checks that a file can be run without a dynamic linker.
func static(file string) error {
	out, err := exec.Command("readelf", "-lW", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("readelf: %w: %s", err, out)
	}
	if bytes.Contains(out, []byte("INTERP")) {
		return fmt.Errorf("it is dynamically linked")
	}
	return os.Chmod(file, 0o755)
}

// deb takes a file from a Debian package.
func (b *Builder) deb(ctx context.Context, tmp, pkg, file, out string) error {
	if err := command(ctx, tmp, nil, "apt-get", "-q", "download", pkg); err != nil {
		return err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages", pkg, len(debs))
	}
	root := filepath.Join(tmp, "root")
	if err := command(ctx, tmp, nil, "dpkg-deb", "-x", debs[0], root); err != nil {
		return err
	}
	return os.Rename(filepath.Join(root, file), out)
}

// source builds a program from a Debian source package. This machine need not know any: apt gets lists and state of its own.
func (b *Builder) source(ctx context.Context, tmp string, p *Program, out string) error {
	apt := filepath.Join(b.Dir, "apt")
	list := filepath.Join(apt, "sources.list")
	if err := os.MkdirAll(filepath.Join(apt, "lists", "partial"), 0o755); err != nil {
		return err
	}
	const where = "deb-src http://deb.debian.org/debian bookworm main\n"
	opts := []string{"-q", "-o", "Dir::State::Lists=" + filepath.Join(apt, "lists"), "-o", "Dir::Etc::SourceList=" + list,
		"-o", "Dir::Etc::SourceParts=/dev/null", "-o", "APT::Sandbox::User=root"}
	if _, err := os.Stat(list); err != nil {
		if err := os.WriteFile(list, []byte(where), 0o644); err != nil {
			return err
		}
		if err := command(ctx, tmp, nil, "apt-get", append(opts, "update")...); err != nil {
			_ = os.Remove(list)
			return err
		}
	}
	src := filepath.Join(tmp, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		return err
	}
	if err := command(ctx, src, nil, "apt-get", append(opts, "source", "--download-only", p.Args[0])...); err != nil {
		return err
	}
	dsc, _ := filepath.Glob(filepath.Join(src, "*.dsc"))
	if len(dsc) != 1 {
		return fmt.Errorf("apt-get source %s left %d descriptions", p.Args[0], len(dsc))
	}
	if err := command(ctx, src, nil, "dpkg-source", "--no-check", "-x", dsc[0], "tree"); err != nil {
		return err
	}
	script := "set -e\n" + p.Build
	return command(ctx, filepath.Join(src, "tree"), []string{"OUT=" + out}, "sh", "-c", script)
}

// c builds testdata/FILE with gcc, or with musl's wrapper of it.
func (b *Builder) c(ctx context.Context, tmp string, p *Program, out string) error {
	cc := map[string]string{"glibc": "gcc", "musl": "musl-gcc"}[p.Args[1]]
	if cc == "" {
		return fmt.Errorf("no such C library: %s (glibc or musl)", p.Args[1])
	}
	src, err := unpack(tmp, p.Args[0])
	if err != nil {
		return err
	}
	args := []string{"-O2", "-pthread", "-static"}
	if len(p.Args) == 3 {
		args = []string{"-O2", "-pthread", "-fPIE", "-static-pie"}
	}
	if cc == "musl-gcc" && len(p.Args) == 3 {
		// The wrapper does not know static PIE: say what it would.
		const lib = "/usr/lib/x86_64-linux-musl/"
		if _, err := os.Stat(lib + "rcrt1.o"); err != nil {
			return fmt.Errorf("%w: no %srcrt1.o (musl-dev)", ErrUnavailable, lib)
		}
		args = append(args, "-nostdinc", "-isystem", "/usr/include/x86_64-linux-musl", "-nostdlib", lib+"rcrt1.o", lib+"crti.o", src, "-L"+lib, "-lc",
			"-lgcc", lib+"crtn.o")
		return command(ctx, tmp, nil, "gcc", append(args, "-o", out)...)
	}
	return command(ctx, tmp, nil, cc, append(args, "-o", out, src, "-lm")...)
}

// goProgram builds testdata/FILE without cgo.
func (b *Builder) goProgram(ctx context.Context, tmp, file, out string) error {
	src, err := unpack(tmp, file)
	if err != nil {
		return err
	}
	return goTool(ctx, tmp, "build", "-o", out, src)
}

func goTool(ctx context.Context, dir string, args ...string) error {
	env := []string{"CGO_ENABLED=0", "GOFLAGS=", "GO111MODULE=off", "GOWORK=off"}
	return command(ctx, dir, env, filepath.Join(runtime.GOROOT(), "bin", "go"), args...)
}

func unpack(dir, file string) (string, error) {
	data, err := files.ReadFile("testdata/" + file)
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, file)
	return to, os.WriteFile(to, data, 0o644)
}

// goroot is where the tree has the parts of Go's source that tests read.
const goroot = "/goroot"

// Tree makes a directory tree for a program in dir: see the package's comment. busybox may be "".
func Tree(dir string, p *Program, exe, busybox string) error {
	for _, d := range []string{"bin", "work", "tmp", "root", "dev", "proc", "etc", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o1777); err != nil {
		return err
	}
	for name, text := range map[string]string{"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"group": "root:x:0:\nnogroup:x:65534:\n", "hostname": "dinos\n", "hosts": "127.0.0.1 localhost\n"} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if busybox != "" {
		if err := applets(dir, busybox); err != nil {
			return err
		}
	}
	to := filepath.Join(dir, "bin", p.As)
	_ = os.Remove(to)
	if err := copyFile(to, exe); err != nil {
		return err
	}
	if p.Kind != kindGoTest {
		return nil
	}
	pkg := filepath.Join(runtime.GOROOT(), "src", p.Args[0])
	return copyTree(filepath.Join(dir, goroot, "src", p.Args[0]), pkg)
}

// applets puts busybox in the tree, under the names of all its applets.
func applets(dir, busybox string) error {
	if err := copyFile(filepath.Join(dir, "bin", "busybox"), busybox); err != nil {
		return err
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("compat: busybox --list: %w", err)
	}
	for _, name := range strings.Fields(string(list)) {
		if name == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", path.Base(name))); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}

func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, p)
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case d.Type().IsRegular():
			return copyFile(dst, p)
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return os.Symlink(link, dst)
		}
		return nil
	})
}
