package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dinos/qemu/rack"
	"dinos/qemu/rack/statedir"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// dumpOverview is what dump prints if no part is named.
var dumpOverview = []string{"super", "map", "machines", "grants"}

func newDumpCmd(ref rackRef) *cobra.Command {
	var file string
	var entries, messages int
	cmd := &cobra.Command{
		Use:   "dump [PART...]",
		Short: "print parts of the shared memory, of a live rack or a dead one",
		Long: `Dump reads the shared memory itself and asks nobody, so it also works when kernels are gone or hang. Parts are
` + strings.Join(layout.DumpParts(), ", ") + ` (numbers of peers: 0 is the ckernel, 1 dkernel1 and so on, the last one the host).
Without a part: ` + strings.Join(dumpOverview, ", ") + `.`,
		Example:   "  dinos dump machine:1 ring:1:0 log:0",
		ValidArgs: layout.DumpParts(),
		RunE: func(cmd *cobra.Command, parts []string) error {
			path := file
			if path == "" {
				base, name, err := ref.resolve()
				if err != nil {
					return err
				}
				path = statedir.MemoryPath(base, name)
				if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("rack %q has no memory any more (%s); 'down --keep' leaves it", name, path)
				}
			}
			if len(parts) == 0 {
				parts = dumpOverview
			}
			return dump(cmd.OutOrStdout(), path, parts, layout.DumpOptions{Log: rack.DumpLog(entries), Grants: grant.Dump, Messages: messages})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "this file, instead of a rack's memory")
	cmd.Flags().IntVar(&entries, "entries", 32, "of a log, the last ones")
	cmd.Flags().IntVar(&messages, "messages", 16, "of a ring")
	ref.bind(cmd)
	return cmd
}

// dump prints parts of the memory in a file.
func dump(out io.Writer, path string, parts []string, opt layout.DumpOptions) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < layout.SuperBytes || !st.Mode().IsRegular() {
		return fmt.Errorf("%s: %d bytes, want a file with a rack's memory", path, st.Size())
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("%s: %w", path, os.NewSyscallError("mmap", err))
	}
	defer unix.Munmap(b)
	r, err := region.New(b)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	w := bufio.NewWriter(out)
	for _, p := range parts {
		if err := layout.Dump(w, r, p, opt); err != nil {
			w.Flush()
			return err
		}
	}
	return w.Flush()
}
