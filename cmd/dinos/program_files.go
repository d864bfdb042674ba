package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"dinos/qemu/rack"
	"dinos/qemu/rack/control"
	"dinos/qemu/rack/statedir"
	"dinos/qemu/rootfs"
)

// hostMount is where the rack's kernels have the directory of the host that is shared.
const hostMount = "/host"

// hostFiles tells which of this host's files a rack has, and where.
type hostFiles struct{ shared string } // "": none

func filesOf(r *rack.Remote) (hostFiles, error) {
	dir, _, err := r.Share()
	return hostFiles{dir}, err
}

// path is where the rack has a file of this host.
func (h hostFiles) path(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if h.shared == "" {
		return "", fmt.Errorf("%s: the rack has no files of this host: start it with 'dinos up --share DIR'", abs)
	}
	rel, err := filepath.Rel(h.shared, abs)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fmt.Errorf("%s: the rack has only the files in %s of this host ('dinos up --share')", abs, h.shared)
	}
	return filepath.Join(hostMount, rel), nil
}

// candidates are where the program name may be in the rack's file system, in the order in which to look.
func (h hostFiles) candidates(name string) (list []string, err error) {
	if strings.Contains(name, "/") {
		st, statErr := os.Stat(name)
		if statErr == nil && !st.IsDir() {
			at, err := h.path(name)
			if err == nil {
				return []string{at}, nil
			}
			if !filepath.IsAbs(name) {
				return nil, err
			}
		}
		if !filepath.IsAbs(name) {
			return nil, control.Errorf(control.CodeNotFound, "%s: there is no such file here", name)
		}
		return []string{name}, nil
	}
	for _, dir := range programPath {
		list = append(list, dir+"/"+name)
	}
	if local, err := exec.LookPath(name); err == nil {
		if at, err := h.path(local); err == nil {
			list = append(list, at)
		}
	}
	return list, nil
}

// start finds the program and starts it.
func start(ctx context.Context, r *rack.Remote, files hostFiles, p rack.Program) (run *rack.Run, err error) {
	name := p.Args[0]
	list := []string{name}
	if p.Root == "" {
		if list, err = files.candidates(name); err != nil {
			return nil, err
		}
	}
	for _, p.Path = range list {
		run, err = r.Run(ctx, &p)
		var e *control.Error
		if err == nil || !errors.As(err, &e) || e.Code != control.CodeNotFound {
			return run, err
		}
	}
	if len(list) == 1 {
		return nil, err
	}
	return nil, control.Errorf(control.CodeNotFound, "%s: there is none in %s of the rack, nor in this host's $PATH", name, strings.Join(programPath, ", "))
}

// environment is base with the changes of more: NAME=VALUE, or NAME as this process has it.
func environment(base, more []string) []string {
	for _, e := range more {
		name, _, given := strings.Cut(e, "=")
		if !given {
			v, ok := os.LookupEnv(name)
			if !ok {
				continue
			}
			e = name + "=" + v
		}
		if i := slices.IndexFunc(base, func(x string) bool { return strings.HasPrefix(x, name+"=") }); i >= 0 {
			base[i] = e
		} else {
			base = append(base, e)
		}
	}
	return base
}

// runOptions are what 'dinos run' was told.
type runOptions struct {
	ref                  rackRef
	program              rack.Program
	root                 string
	terminal, noTerminal bool
}

// run is the command.
func (o *runOptions) run(cmd *cobra.Command) (err error) {
	p := o.program
	ctx := cmd.Context()
	o.ref.up = true
	r, err := o.ref.connectIfAny()
	if err != nil {
		return err
	}
	if r == nil {
		var down func() error
		if r, down, err = o.ownRack(ctx, cmd.ErrOrStderr()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, down()) }()
	}
	files, err := filesOf(r)
	if err != nil {
		return err
	}
	if o.root != "" {
		name, remove, err := archive(o.root)
		if err != nil {
			return err
		}
		defer remove()
		if p.Root, err = files.path(name); err != nil {
			return err
		}
		if !filepath.IsAbs(p.Args[0]) {
			return fmt.Errorf("%s: want the path of a program in %s, which begins with /", p.Args[0], o.root)
		}
	}
	if p.Dir == "" {
		p.Dir = "/"
		if at, err := files.path("."); err == nil && o.root == "" {
			p.Dir = at
		}
	}
	in, out := cmd.InOrStdin(), cmd.OutOrStdout()
	p.Terminal = o.terminal || !o.noTerminal && isTerminal(in) && isTerminal(out)
	return execute(ctx, r, files, p, in, out, cmd.ErrOrStderr())
}

// ownRack starts a rack for one program. It ends with down, and with this process.
func (o *runOptions) ownRack(ctx context.Context, log io.Writer) (r *rack.Remote, down func() error, err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cfg := rack.Config{Name: fmt.Sprintf("%s%d", ownRackPrefix, os.Getpid()), Dkernels: 1, Cores: max(rack.DefaultCores, int(o.program.Cores)), Share: "/", ShareWrite: true}
	if err := images(&cfg); err != nil {
		return nil, nil, err
	}
	if err := busyboxRoot(&cfg); err != nil {
		return nil, nil, err
	}
	if !isTerminal(log) { // a program's error output is to be the program's
		log = io.Discard
	}
	if r, err = up(ctx, cfg, log); err != nil {
		return nil, nil, err
	}
	hold, err := r.Hold(context.WithoutCancel(ctx))
	if err != nil {
		return nil, nil, errors.Join(err, r.Down(context.WithoutCancel(ctx), false))
	}
	return r, func() error {
		defer hold()
		return r.Down(context.Background(), false)
	}, nil
}

// ownRackPrefix begins the names of racks that were started for one program.
const ownRackPrefix = "run-"

// archive returns the path of a root directory as an archive; a directory is packed into one that remove removes.
func archive(root string) (name string, remove func(), err error) {
	st, err := os.Stat(root)
	if err != nil {
		return "", nil, err
	}
	if !st.IsDir() {
		return root, func() {}, nil
	}
	name, err = writeTemp("", func(w io.Writer) error { return rootfs.FromDir(w, root) })
	return name, func() { os.Remove(name) }, err
}

// writeTemp makes a temporary file in dir with what f writes.
func writeTemp(dir string, f func(io.Writer) error) (name string, err error) {
	t, err := os.CreateTemp(dir, "dinos-root-*.cpio")
	if err != nil {
		return "", err
	}
	err = f(t)
	if cerr := t.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(t.Name())
	}
	return t.Name(), err
}

// busyboxRoot gives a rack a root directory with this host's busybox, if nothing else was asked for and there is one: kernels run
// programs without it, too. The archive is kept beside the racks' directories.
func busyboxRoot(cfg *rack.Config) error {
	if cfg.Initrd != "" {
		return nil
	}
	busybox, err := rootfs.FindBusybox()
	if err != nil {
		return nil
	}
	st, err := os.Stat(busybox)
	if err != nil {
		return err
	}
	base, err := statedir.Base()
	if err != nil {
		return err
	}
	dir := filepath.Join(filepath.Dir(base), filepath.Base(base)+"-roots")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cfg.Initrd = filepath.Join(dir, fmt.Sprintf("busybox-%x-%x.cpio", st.Size(), st.ModTime().UnixNano()))
	if _, err := os.Stat(cfg.Initrd); err == nil {
		return nil
	}
	tmp, err := writeTemp(dir, func(w io.Writer) error { return rootfs.Busybox(w, busybox) })
	if err != nil {
		return err
	}
	return os.Rename(tmp, cfg.Initrd)
}
