package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"dinos/boot/image"
)

// maxImage bounds what is read, so that a wrong path does not fill memory. Images are some 10 MB.
const maxImage = 1 << 30

func newImageCmd() *cobra.Command {
	var opt image.Options
	cmd := &cobra.Command{
		Use:   "image IN OUT",
		Short: "make a kernel linked by go build bootable",
		Long: `Image rewrites IN, a kernel linked with

	CGO_ENABLED=0 go build -ldflags "-T -0x7fe00000 -E ENTRY"

into OUT, an ELF file that QEMU boots with -kernel and that gdb reads symbols from.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return writeImage(args[0], args[1], opt)
		},
	}
	cmd.Flags().StringVar(&opt.Record, "record", image.DefaultRecord, "symbol of the kernel's boot record")
	return cmd
}

// writeImage replaces out in one step: a failure leaves what was there.
func writeImage(in, out string, opt image.Options) error {
	st, err := os.Stat(in)
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file, want a linked kernel", in)
	case st.Size() > maxImage:
		return fmt.Errorf("%s has %d bytes, want a kernel of at most %d", in, st.Size(), maxImage)
	}
	elf, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	img, _, err := image.Rewrite(elf, opt)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), filepath.Base(out)+".tmp*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails, harmlessly, once renamed
	_, err = tmp.Write(img)
	if err == nil {
		err = tmp.Chmod(0o755)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), out)
}
