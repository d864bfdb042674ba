// Package build runs the stock go command to build bootable kernels: the one place that knows its flags.
package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"dinos/boot/image"
	"dinos/boot/overlay"
)

// DefaultEntry is the entry symbol of this project's kernels, an assembly function without a Go declaration.
const DefaultEntry = "boot64"

// Tag is set in every build of a kernel. Files with it need what boot/overlay adds to the distribution.
const Tag = "kernel"

// linkAddress is record.LinkAddress as the linker's -T wants it: negative.
const linkAddress = "-0x7fe00000"

// Options says what to build. The zero value of a field means its default.
type Options struct {
	Package string        // import path or directory as go build takes it; required
	Dir     string        // where go runs, inside the module; the current directory
	Entry   string        // DefaultEntry
	Tags    []string      // build tags besides Tag
	Image   image.Options // passed on
}

// Kernel builds a bootable image at out. out appears complete or not at all.
func Kernel(ctx context.Context, opt Options, out string) error {
	if opt.Package == "" {
		return fmt.Errorf("build: no package")
	}
	if opt.Entry == "" {
		opt.Entry = DefaultEntry
	}
	// Beside out, so that the rename stays in one file system.
	dir, err := os.MkdirTemp(filepath.Dir(out), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	ov := filepath.Join(dir, "overlay.json")
	b, err := Overlay(ctx, opt.Dir)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ov, b, 0o644); err != nil {
		return err
	}
	linked := filepath.Join(dir, "linked.elf")
	_, err = goCmd(ctx, opt.Dir, "build", "-overlay", ov, "-tags", strings.Join(append([]string{Tag}, opt.Tags...), ","),
		"-ldflags", "-T "+linkAddress+" -E "+opt.Entry, "-o", linked, opt.Package)
	if err != nil {
		return err
	}
	elf, err := os.ReadFile(linked)
	if err != nil {
		return err
	}
	img, _, err := image.Rewrite(elf, opt.Image)
	if err != nil {
		return fmt.Errorf("%s: %w", opt.Package, err)
	}
	done := filepath.Join(dir, "bootable.elf")
	if err := os.WriteFile(done, img, 0o755); err != nil {
		return err
	}
	return os.Rename(done, out)
}

// Overlay returns the content of the -overlay file for the distribution and the module that the go command uses in dir,
// which need not be those that this program was built with.
func Overlay(ctx context.Context, dir string) ([]byte, error) {
	goroot, err := goCmd(ctx, dir, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	pkg, err := goCmd(ctx, dir, "list", "-f", "{{.Dir}}", "dinos/boot/overlay")
	if err != nil {
		return nil, err
	}
	return overlay.Generate(filepath.Join(pkg, overlay.Dir), goroot)
}

// goCmd runs the go command for the kernels' target and returns its output.
func goCmd(ctx context.Context, dir string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1")
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(b)), nil
}
