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

// newest asks apt for the newest kernel: its package and its release.
func newest(ctx context.Context) (name, rel string, err error) {
	for _, tool := range []string{"apt-cache", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", "", fmt.Errorf("%s is not installed: this needs Debian, or give a kernel by Options.Kernel", tool)
		}
	}
	out, err := command(ctx, "", "apt-cache", "depends", "--important", metaPackage)
	if err != nil {
		return "", "", err
	}
	for _, w := range strings.Fields(string(out)) {
		if m := imagePackage.FindStringSubmatch(w); m != nil {
			name, rel = w, m[1]
		}
	}
	if name == "" {
		return "", "", fmt.Errorf("apt knows no kernel that %s depends on; try apt-get update", metaPackage)
	}
	return name, rel, nil
}

// download fetches and unpacks the package of the newest kernel into dir.
func download(ctx context.Context, dir string, log io.Writer) (Kernel, error) {
	name, rel, err := newest(ctx)
	if err != nil {
		return Kernel{}, err
	}
	tmp, err := fetch(ctx, dir, name, log)
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(tmp)
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

// fetch downloads a package and extracts it to root in a new directory in dir, which the caller removes.
func fetch(ctx context.Context, dir, name string, log io.Writer) (tmp string, err error) {
	fmt.Fprintf(log, "linuxguest: downloading %s (27 MB) through apt into %s\n", name, dir)
	if tmp, err = os.MkdirTemp(dir, ".new-"); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	if _, err := command(ctx, tmp, "apt-get", "-q", "download", name); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages, want 1", name, len(debs))
	}
	_, err = command(ctx, tmp, "dpkg-deb", "-x", debs[0], filepath.Join(tmp, "root"))
	return tmp, err
}

// FindModules returns the paths of modules of FindKernel's kernel, which are kept beside it; those that are not there come through
// apt. Names are those of the files, without ".ko".
func FindModules(ctx context.Context, dir string, names []string, log io.Writer) ([]string, error) {
	k, err := FindKernel(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(filepath.Dir(k.Path), "modules")
	paths := make([]string, len(names))
	var missing []int
	for i, n := range names {
		paths[i] = filepath.Join(home, n+".ko")
		if _, err := os.Stat(paths[i]); err != nil {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return paths, nil
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, fmt.Errorf("linuxguest: %w", err)
	}
	tmp, err := fetch(ctx, filepath.Dir(filepath.Dir(k.Path)), "linux-image-"+k.Release, log)
	if err != nil {
		return nil, fmt.Errorf("linuxguest: cannot get modules of Linux %s: %w", k.Release, err)
	}
	defer os.RemoveAll(tmp)
	for _, i := range missing {
		if err := takeModule(filepath.Join(tmp, "root"), names[i], paths[i]); err != nil {
			return nil, fmt.Errorf("linuxguest: Linux %s: %w", k.Release, err)
		}
	}
	return paths, nil
}

// takeModule moves the module of that name somewhere under root to the file to.
func takeModule(root, name, to string) error {
	found := ""
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == name+".ko" {
			found = path
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case found == "":
		return fmt.Errorf("there is no module %q", name)
	}
	return os.Rename(found, to)
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
