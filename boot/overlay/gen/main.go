// Command gen writes the file for go build -overlay that adds boot/overlay's files to the Go distribution in use. The
// build command of cmd/dinos does so by itself; this is for builds and vets of a kernel by hand.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"dinos/boot/build"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("gen", flag.ContinueOnError)
	out := fs.String("o", "", "file to write")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *out == "" || fs.NArg() != 0 {
		return fmt.Errorf("usage: go run ./boot/overlay/gen -o FILE")
	}
	b, err := build.Overlay(context.Background(), "")
	if err != nil {
		return err
	}
	// make looks at the file's time: leave it alone when nothing changed.
	if old, err := os.ReadFile(*out); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(*out, b, 0o644)
}
