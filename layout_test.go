// Package dinos_test holds the tests of the repository as a whole.
package dinos_test

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const (
	module   = "dinos"
	maxLines = 600
	// minReason is the number of words of a comment that can give a reason.
	minReason = 4
)

// longFiles are exempt from maxLines. Keep it empty: split the file.
var longFiles = []string{}

// testImports are the modules that every test file may import.
var testImports = []string{
	"github.com/stretchr/testify",
	"pgregory.net/rapid",
	"github.com/anishathalye/porcupine",
}

// impure are the packages of the standard library, with those below them, that
// lead to the operating system.
var impure = []string{"os", "net", "syscall", "plugin", "log/syslog", "runtime/cgo"}

// pureAnyway are below impure ones but hold only data.
var pureAnyway = []string{"net/netip", "net/url"}

func TestLayout(t *testing.T) {
	for _, v := range checkLayout(os.DirFS(".")) {
		t.Error(v)
	}
}

// entry is one line of layout.txt.
type entry struct {
	line    int
	class   string
	imports []string
}

// layout is the check of one tree.
type layout struct {
	fsys    fs.FS
	entries map[string]*entry // by package path relative to the module
	dirs    map[string]bool   // directories with Go files
	errs    []string
}

func (l *layout) errorf(format string, args ...any) {
	l.errs = append(l.errs, fmt.Sprintf(format, args...))
}

// checkLayout returns what in the tree is against layout.txt and the rules that
// its head states, one line each.
func checkLayout(fsys fs.FS) []string {
	l := &layout{fsys: fsys, entries: map[string]*entry{}, dirs: map[string]bool{}}
	l.readTable()
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != "." && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() {
			l.file(p)
		}
		return nil
	})
	if err != nil {
		l.errorf("walking the tree: %v", err)
	}
	for p, e := range l.entries {
		if !l.dirs[p] {
			l.errorf("layout.txt:%d: %s has no Go files; remove the line", e.line, p)
		}
	}
	slices.Sort(l.errs)
	return l.errs
}

func (l *layout) readTable() {
	data, err := fs.ReadFile(l.fsys, "layout.txt")
	if err != nil {
		l.errorf("%v", err)
		return
	}
	n := 0
	for s := bufio.NewScanner(strings.NewReader(string(data))); s.Scan(); {
		n++
		text, _, _ := strings.Cut(s.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		if len(f) < 3 {
			l.errorf("layout.txt:%d: want package, class and imports (\"-\" for none)", n)
			continue
		}
		e := &entry{line: n, class: f[1]}
		if f[1] != "pure" && f[1] != "hw" && f[1] != "host" {
			l.errorf("layout.txt:%d: class %q of %s is none of pure, hw, host", n, f[1], f[0])
		}
		if old := l.entries[f[0]]; old != nil {
			l.errorf("layout.txt:%d: %s is already on line %d", n, f[0], old.line)
			continue
		}
		l.entries[f[0]] = e
		if f[2] == "-" {
			continue
		}
		e.imports = f[2:]
		for _, imp := range e.imports {
			l.permission(f[0], e, imp)
		}
	}
}

// permission checks one allowed import of package p. Only lines above are in
// l.entries yet, which is what makes imports point one way.
func (l *layout) permission(p string, e *entry, imp string) {
	if strings.Contains(strings.Split(imp, "/")[0], ".") {
		return // another module
	}
	to := l.entries[imp]
	switch {
	case to == nil || imp == p:
		l.errorf("layout.txt:%d: %s may import %s, which is not listed above it", e.line, p, imp)
	case to.class == "hw" && e.class != "hw", to.class == "host" && e.class != "host":
		l.errorf("layout.txt:%d: %s is %s and may not import %s, which is %s", e.line, p, e.class, imp, to.class)
	}
}

// file checks one file of the tree. Directories that the go command ignores
// (testdata, _name) are no packages, but what they hold is source all the same.
func (l *layout) file(p string) {
	dir, name := path.Split(p)
	dir = path.Clean(dir)
	ext := path.Ext(name)
	ignored := slices.ContainsFunc(strings.Split(dir, "/"), func(s string) bool {
		return s == "testdata" || s != "." && strings.HasPrefix(s, "_")
	})
	e := l.entries[dir]
	switch ext {
	case ".s", ".S", ".c", ".h", ".syso":
		if e != nil && e.class == "pure" && !ignored {
			l.errorf("%s: package %s is pure and may hold no assembly or object file", p, dir)
		}
		if ext != ".syso" {
			l.lines(p)
		}
		return
	case ".go":
	case ".mod":
		if p != "go.mod" && !ignored {
			l.errorf("%s: a second module would escape the import policy", p)
		}
		return
	default:
		return
	}
	src := l.lines(p)
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		l.errorf("%v", err)
		return
	}
	l.directives(set, f)
	if ignored {
		return
	}
	l.inits(set, f)
	if e == nil {
		if !l.dirs[dir] {
			l.errorf("%s: package %s is not listed in layout.txt", p, dir)
		}
	} else {
		for _, spec := range f.Imports {
			l.imported(set.Position(spec.Pos()), dir, e, spec)
		}
	}
	l.dirs[dir] = true
}

// generated is the mark of generated files (go help generate).
var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// lines checks the length of a file and returns its content.
func (l *layout) lines(p string) []byte {
	src, err := fs.ReadFile(l.fsys, p)
	if err != nil {
		l.errorf("%v", err)
		return nil
	}
	n := strings.Count(string(src), "\n")
	if n > maxLines && !slices.Contains(longFiles, p) && !generated.Match(src) {
		l.errorf("%s: %d lines, more than %d; split it", p, n, maxLines)
	}
	return src
}

// directives checks that //go:nosplit and //go:linkname have a reason.
func (l *layout) directives(set *token.FileSet, f *ast.File) {
	for _, group := range f.Comments {
		words := 0
		for _, c := range group.List {
			d, _, _ := strings.Cut(c.Text, " ")
			switch {
			case d == "//go:nosplit" || d == "//go:linkname":
				if words < minReason {
					l.errorf("%v: %s without a reason in the comment directly above", set.Position(c.Pos()), d)
				}
			case !strings.HasPrefix(d, "//go:"):
				words += len(strings.Fields(strings.Trim(c.Text, "/*")))
			}
		}
	}
}

func (l *layout) inits(set *token.FileSet, f *ast.File) {
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			l.errorf("%v: init function; let the composition root call it", set.Position(fn.Pos()))
		}
	}
}

// under tells whether imp is one of paths or below one.
func under(imp string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool {
		return imp == p || strings.HasPrefix(imp, p+"/")
	})
}

// imported checks one import of a file of package dir.
func (l *layout) imported(pos token.Position, dir string, e *entry, spec *ast.ImportSpec) {
	imp, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		l.errorf("%v: %v", pos, err)
		return
	}
	test := strings.HasSuffix(pos.Filename, "_test.go")
	base := strings.TrimSuffix(strings.TrimSuffix(pos.Filename, ".go"), "_test")
	first, _, _ := strings.Cut(imp, "/")
	local, isLocal := strings.CutPrefix(imp, module+"/")
	switch {
	case imp == "C":
		l.errorf("%v: cgo is not used", pos)
	case imp == "unsafe":
		if !strings.HasSuffix(base, "_unsafe") {
			l.errorf("%v: unsafe is for files named *_unsafe.go", pos)
		}
	case isLocal:
		l.importedLocal(pos, dir, e, local, test)
	case imp == module:
		l.errorf("%v: the root package is only tests", pos)
	case strings.Contains(first, "."):
		if !under(imp, e.imports) && !(test && under(imp, testImports)) {
			l.errorf("%v: layout.txt does not let %s import %s", pos, dir, imp)
		}
	case e.class == "pure" && !test && under(imp, impure) && !under(imp, pureAnyway):
		l.errorf("%v: %s is pure and may not import %s", pos, dir, imp)
	}
}

// importedLocal checks an import of a package of this module.
func (l *layout) importedLocal(pos token.Position, dir string, e *entry, imp string, test bool) {
	to := l.entries[imp]
	switch {
	case to == nil:
		l.errorf("%v: %s is not listed in layout.txt", pos, imp)
	case test && (imp == dir || to.line < e.line):
		if to.class == "hw" && e.class != "hw" {
			l.errorf("%v: a test of %s runs on the host and may not import %s, which is hw", pos, dir, imp)
		}
	case test:
		l.errorf("%v: %s is not below %s in layout.txt", pos, imp, dir)
	case !slices.Contains(e.imports, imp):
		l.errorf("%v: layout.txt does not let %s import %s", pos, dir, imp)
	}
}

// TestLayoutFinds breaks each rule once, in a tree that is otherwise correct.
func TestLayoutFinds(t *testing.T) {
	const table = `
# package class imports
low     pure -
cpu     hw   low
mid     pure low example.org/lib
tool    host low mid
`
	good := map[string]string{
		"layout.txt":            table,
		"go.mod":                "module dinos",
		"low/low.go":            "package low\nimport _ \"strings\"\n// f must not grow the stack: it has none.\n//\n//go:nosplit\nfunc f() {}\nfunc (x) init() {}\n",
		"low/a_unsafe.go":       "package low\nimport _ \"unsafe\"\n// g is the runtime's own clock.\n//\n//go:noescape\n//go:linkname g runtime.g\nfunc g()\n",
		"low/a_unsafe_test.go":  "package low\nimport (_ \"unsafe\"; _ \"os\"; _ \"github.com/stretchr/testify/require\")\n",
		"low/low_test.go":       "package low_test\nimport _ \"dinos/low\"\n",
		"cpu/cpu.go":            "//go:build never\n\npackage cpu\nimport _ \"dinos/low\"\n",
		"cpu/cpu.s":             "// code\n",
		"mid/mid.go":            "package mid\nimport (_ \"dinos/low\"; _ \"example.org/lib/sub\"; _ \"net/netip\")\n",
		"tool/main.go":          "package main\nimport (_ \"dinos/mid\"; _ \"os\"; _ \"net/http\")\n",
		"tool/gen.go":           "// Code generated by x. DO NOT EDIT.\npackage main\n" + strings.Repeat("\n", maxLines),
		"tool/testdata/x/x.go":  "package x\nimport _ \"anything.org/x\"\n",
		"tool/testdata/go.mod":  "module x",
		"tool/_extra/y/y.go":    "package y\nimport _ \"unsafe\"\n",
		".hidden/z.go":          "package z\nimport \"C\"\n",
		"tool/testdata/x/bad.s": "",
	}
	require.Empty(t, checkLayout(tree(good)))

	const unlisted = "not listed in layout.txt"
	for _, c := range []struct {
		name, file, content string
		want                string // regular expression, found in each complaint
	}{
		{"unlisted package", "new/new.go", "package p", `new/new.go: package new is ` + unlisted},
		{"unlisted root", "x_test.go", "package p", `x_test.go: package . is ` + unlisted},
		{"unlisted under another tag", "new/x_windows.go", "package p", unlisted},
		{"no layout line left behind", "layout.txt", table + "gone pure -", `layout.txt:7: gone has no Go files`},
		{"short line", "layout.txt", table + "gone pure", `layout.txt:7: want package`},
		{"class", "layout.txt", strings.Replace(table, "low     pure", "low soft", 1), `class "soft" of low`},
		{"twice", "layout.txt", table + "low host -", `layout.txt:7: low is already on line 3`},
		{"upwards permission", "layout.txt", strings.Replace(table, "low     pure -", "low pure mid", 1), `low may import mid, which is not listed above`},
		{"self permission", "layout.txt", strings.Replace(table, "low     pure -", "low pure low", 1), `low may import low`},
		{"pure on hw", "layout.txt", strings.Replace(table, "pure low", "pure low cpu", 1), `mid is pure and may not import cpu, which is hw`},
		{"host on hw", "layout.txt", strings.Replace(table, "host low", "host low cpu", 1), `tool is host and may not import cpu`},
		{"hw on host", "layout.txt", table + "cpu2 hw tool\n", `cpu2 is hw and may not import tool|cpu2 has no Go files`},
		{"pure on host", "layout.txt", table + "p2 pure tool\n", `p2 is pure and may not import tool|p2 has no Go files`},
		{"import not allowed", "cpu/b.go", "package cpu\nimport _ \"dinos/mid\"", `cpu/b.go:2:8: layout.txt does not let cpu import mid`},
		{"import not allowed, other tag", "cpu/b_plan9.go", "package cpu\nimport _ \"dinos/mid\"", `does not let cpu import mid`},
		{"import of unlisted", "tool/b.go", "package main\nimport _ \"dinos/none\"", `none is ` + unlisted},
		{"import of root", "tool/b.go", "package main\nimport _ \"dinos\"", `root package`},
		{"other module", "low/b.go", "package low\nimport _ \"example.org/lib\"", `let low import example.org/lib`},
		{"other module, same prefix", "mid/b.go", "package mid\nimport _ \"example.org/library\"", `let mid import example.org/library`},
		{"test library outside tests", "low/b.go", "package low\nimport _ \"pgregory.net/rapid\"", `let low import pgregory.net/rapid`},
		{"other module in a test", "low/b_test.go", "package low\nimport _ \"example.org/lib\"", `let low import example.org/lib`},
		{"test upwards", "low/b_test.go", "package low\nimport _ \"dinos/mid\"", `mid is not below low`},
		{"host test on hw", "mid/b_test.go", "package mid\nimport _ \"dinos/cpu\"", `test of mid runs on the host`},
		{"assembly in pure", "low/b_amd64.s", "", `low is pure and may hold no assembly`},
		{"object in pure", "low/b.syso", "", `low is pure and may hold no assembly`},
		{"os in pure", "low/b.go", "package low\nimport _ \"os\"", `low is pure and may not import os`},
		{"os/exec in pure", "low/b.go", "package low\nimport _ \"os/exec\"", `may not import os/exec`},
		{"net/http in pure", "low/b.go", "package low\nimport _ \"net/http\"", `may not import net/http`},
		{"syscall in pure", "low/b_unsafe.go", "package low\nimport _ \"syscall\"", `may not import syscall`},
		{"unsafe", "low/b.go", "package low\nimport _ \"unsafe\"", `b.go:2:8: unsafe is for files`},
		{"unsafe in hw", "cpu/b.go", "package cpu\nimport _ \"unsafe\"", `unsafe is for files`},
		{"unsafe in a test", "low/b_test.go", "package low\nimport _ \"unsafe\"", `unsafe is for files`},
		{"cgo", "tool/b.go", "package main\nimport \"C\"", `cgo`},
		{"nosplit", "cpu/b.go", "package cpu\n\n//go:nosplit\nfunc f() {}", `b.go:3:1: //go:nosplit without a reason`},
		{"nosplit, few words", "cpu/b.go", "package cpu\n\n// must not split\n//go:nosplit\nfunc f() {}", `//go:nosplit without`},
		{"nosplit, reason apart", "cpu/b.go", "package cpu\n\n// It runs before there is a stack.\n\n//go:nosplit\nfunc f() {}", `//go:nosplit without`},
		{"nosplit, reason below", "cpu/b.go", "package cpu\n\n//go:nosplit\n// It runs before there is a stack.\nfunc f() {}", `//go:nosplit without`},
		{"nosplit, only directives", "cpu/b.go", "package cpu\n\n//go:noinline a b c d\n//go:nosplit\nfunc f() {}", `//go:nosplit without`},
		{"linkname", "cpu/b.go", "package cpu\n\n//go:linkname f runtime.f\nfunc f()", `//go:linkname without`},
		{"linkname in an ignored directory", "cpu/_x/b.go", "package cpu\n\n//go:linkname f runtime.f\nfunc f()", `//go:linkname without`},
		{"init", "tool/b.go", "package main\nfunc init() {}", `init function`},
		{"long file", "tool/b.go", "package main\n" + strings.Repeat("\n", maxLines), `601 lines, more than 600`},
		{"long assembly", "cpu/b.s", strings.Repeat("\n", maxLines+1), `601 lines`},
		{"second module", "tool/go.mod", "module x", `second module`},
		{"syntax", "tool/b.go", "package", `expected 'IDENT'`},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := map[string]string{c.file: c.content}
			for k, v := range good {
				if k != c.file {
					bad[k] = v
				}
			}
			errs := checkLayout(tree(bad))
			require.NotEmpty(t, errs)
			for _, e := range errs {
				require.Regexp(t, c.want, e)
			}
		})
	}
	delete(good, "layout.txt")
	require.Contains(t, checkLayout(tree(good)), "open layout.txt: file does not exist")
}

func tree(files map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}
