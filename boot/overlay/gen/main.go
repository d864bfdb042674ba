// Command gen writes the file for go build -overlay that adds boot/overlay's files to the Go distribution in use.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"dinos/boot/overlay"
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
	// The overlay must name the distribution and the tree that the go command sees, not those this program was built with.
	goroot, err := goCmd("env", "GOROOT")
	if err != nil {
		return err
	}
	pkg, err := goCmd("list", "-f", "{{.Dir}}", "dinos/boot/overlay")
	if err != nil {
		return err
	}
	b, err := overlay.Generate(filepath.Join(pkg, overlay.Dir), goroot)
	if err != nil {
		return err
	}
	// The go command's cache does not look at this file's time, but make does: leave it alone when nothing changed.
	if old, err := os.ReadFile(*out); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(*out, b, 0o644)
}

// goCmd returns the output of the go command.
func goCmd(args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("go", args...)
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(b)), nil
}
