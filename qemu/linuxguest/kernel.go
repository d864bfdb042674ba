package linuxguest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// metaPackage depends on the newest kernel package of its kind.
const metaPackage = "linux-image-cloud-amd64"

// Kernel is an uncompressed Linux kernel.
type Kernel struct {
	Release string // as uname -r says: 6.1.0-56-cloud-amd64
	Path    string // ELF file that boots through PVH
}

// CacheDir is where kernels are kept unless told otherwise.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("linuxguest: no cache directory: %w", err)
	}
	return filepath.Join(dir, "dinos", "linux"), nil
}

// FindKernel returns the newest kernel in dir (CacheDir if ""). If there is none it
// downloads one through apt, saying so on log.
func FindKernel(ctx context.Context, dir string, log io.Writer) (Kernel, error) {
	if dir == "" {
		d, err := CacheDir()
		if err != nil {
			return Kernel{}, err
		}
		dir = d
	}
	if k, ok := cached(dir); ok {
		return k, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("linuxguest: %w", err)
	}
	k, err := download(ctx, dir, log)
	if err != nil {
		return Kernel{}, fmt.Errorf("linuxguest: cannot get a Linux kernel (package %s, through apt): %w", metaPackage, err)
	}
	return k, nil
}

// cached returns the kernel with the highest version in dir. Each is a file
// vmlinux in a directory named by its release, put there complete by a rename.
func cached(dir string) (Kernel, bool) {
	paths, _ := filepath.Glob(filepath.Join(dir, "*", "vmlinux")) // the pattern is well-formed
	var found []Kernel
	for _, p := range paths {
		if name := filepath.Base(filepath.Dir(p)); !strings.HasPrefix(name, ".") {
			found = append(found, Kernel{name, p})
		}
	}
	if len(found) == 0 {
		return Kernel{}, false
	}
	return slices.MaxFunc(found, func(a, b Kernel) int { return compareReleases(a.Release, b.Release) }), true
}

var digits = regexp.MustCompile(`\d+|\D+`)

// compareReleases orders releases with numbers as numbers: 6.1.0-9 before 6.1.0-10.
func compareReleases(a, b string) int {
	return slices.CompareFunc(digits.FindAllString(a, -1), digits.FindAllString(b, -1), func(x, y string) int {
		if x[0] >= '0' && x[0] <= '9' && y[0] >= '0' && y[0] <= '9' {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
		}
		return strings.Compare(x, y)
	})
}

// imagePackage matches the name of a package that holds a kernel.
var imagePackage = regexp.MustCompile(`^linux-image-(\d\S*)$`)

// download fetches and unpacks the package of the newest kernel into dir.
func download(ctx context.Context, dir string, log io.Writer) (Kernel, error) {
	for _, tool := range []string{"apt-cache", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return Kernel{}, fmt.Errorf("%s is not installed: this needs Debian, or give a kernel by Options.Kernel", tool)
		}
	}
	out, err := command(ctx, "", "apt-cache", "depends", "--important", metaPackage)
	if err != nil {
		return Kernel{}, err
	}
	name, rel := "", ""
	for _, w := range strings.Fields(string(out)) {
		if m := imagePackage.FindStringSubmatch(w); m != nil {
			name, rel = w, m[1]
		}
	}
	if name == "" {
		return Kernel{}, fmt.Errorf("apt knows no kernel that %s depends on; try apt-get update", metaPackage)
	}
	fmt.Fprintf(log, "linuxguest: downloading %s (27 MB) through apt into %s\n", name, dir)
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	if _, err := command(ctx, tmp, "apt-get", "-q", "download", name); err != nil {
		return Kernel{}, err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return Kernel{}, fmt.Errorf("apt-get download %s left %d packages, want 1", name, len(debs))
	}
	if _, err := command(ctx, tmp, "dpkg-deb", "-x", debs[0], filepath.Join(tmp, "root")); err != nil {
		return Kernel{}, err
	}
	ready := filepath.Join(tmp, "ready")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return Kernel{}, err
	}
	if err := unpack(filepath.Join(tmp, "root", "boot", "vmlinuz-"+rel), filepath.Join(ready, "vmlinux")); err != nil {
		return Kernel{}, err
	}
	final := filepath.Join(dir, rel)
	if err := os.Rename(ready, final); err != nil && !errors.Is(err, os.ErrExist) { // another process was faster
		return Kernel{}, err
	}
	return Kernel{rel, filepath.Join(final, "vmlinux")}, nil
}

// unpack writes the ELF file in the bzImage at from to the file to.
func unpack(from, to string) error {
	image, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	elf, err := Extract(image)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.WriteFile(to, elf, 0o644)
}

// command runs a tool and returns its output; the error has what it said.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
