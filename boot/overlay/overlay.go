// Package overlay describes the files that the kernels add to the Go distribution at build time, by
// go build -overlay: the few symbols that TamaGo's drivers expect from TamaGo's toolchain, and whatever else
// must be compiled into package runtime. They only add: no file of the distribution is replaced.
//
// The files lie in _goroot, which mirrors GOROOT/src; a new file there needs no other change.
package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Dir is the tree of added files, relative to the directory of this package.
const Dir = "_goroot"

// Generate returns the content of the file for go build -overlay that adds the Go files in tree (a path to Dir) to
// the distribution at goroot. It is an error if the distribution has a file of one of the names.
func Generate(tree, goroot string) ([]byte, error) {
	tree, err := filepath.Abs(tree)
	if err != nil {
		return nil, err
	}
	src := filepath.Join(goroot, "src")
	if st, err := os.Stat(filepath.Join(src, "runtime")); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("overlay: %s is no Go distribution: it has no src/runtime", goroot)
	}
	replace := map[string]string{}
	err = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if ext := filepath.Ext(path); !d.Type().IsRegular() || ext != ".go" && ext != ".s" || strings.HasSuffix(path, "_test.go") {
			return fmt.Errorf("overlay: %s is not a Go or assembly source file; only those belong in %s", path, Dir)
		}
		rel, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		target := filepath.Join(src, rel)
		switch _, err := os.Lstat(target); {
		case err == nil:
			return fmt.Errorf("overlay: %s would replace %s of the Go distribution: rename it, the overlay may only add", path, target)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		replace[target] = path
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(replace) == 0 {
		return nil, fmt.Errorf("overlay: no files in %s", tree)
	}
	return json.MarshalIndent(map[string]any{"Replace": replace}, "", "\t")
}
