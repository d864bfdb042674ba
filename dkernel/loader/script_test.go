package loader

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/loader/elftest"
	"dinos/kernel/linux"
)

// argsOf are the arguments that a program would be started with.
func (p *Program) argsOf() []string {
	data := append(append([]byte(nil), p.prefix...), p.args.data[p.skip:p.args.argLen]...)
	list := strings.Split(string(data), "\x00")
	return list[:len(list)-1]
}

// script executes a file here and on Linux; the interpreter at the end prints its arguments. It returns them.
func (f *files) script(t testing.TB, path string, argv []string) ([]string, error) {
	p, _, _, err := f.exec(t, path, argv, nil, &System{Random: func() uint64 { return 0 }})
	cmd := exec.Command(path)
	cmd.Args, cmd.Env = argv, []string{}
	var out bytes.Buffer
	cmd.Stdout = &out
	real := cmd.Run()
	var no syscall.Errno
	if errors.As(real, &no) {
		require.EqualValues(t, no, Errno(err), "Linux: %v, here: %v\n%q", real, err, f.data[path])
		return nil, err
	}
	require.ErrorAs(t, real, new(*exec.ExitError))
	require.NoError(t, err, "Linux executes %q", f.data[path])
	got := p.argsOf()
	want := strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00")
	require.Equal(t, want, got, "%q", f.data[path])
	require.Equal(t, len(got), cmd.ProcessState.ExitCode())
	require.Equal(t, len(got), p.argc())
	return got, nil
}

func TestScripts(t *testing.T) {
	f := newFiles(t)
	prog, err := elftest.Args(linux.ET_EXEC)
	require.NoError(t, err)
	in := f.add(t, "i", prog)
	self := f.add(t, "script", nil)
	argv := []string{"lost", "a", "b c"}
	for _, c := range []struct {
		text string
		want []string // in front of a and "b c"; nil: an error
	}{
		{"#!" + in + "\n", []string{in, self}},
		{"#!" + in, []string{in, self}},
		{"#! \t " + in + " \t \n", []string{in, self}},
		{"#!" + in + " -x", []string{in, "-x", self}},
		{"#!" + in + " -x  -y \t\n", []string{in, "-x  -y", self}},
		{"#!" + in + " \x00", []string{in, "", self}}, // Linux' own oddity
		{"#!" + in + "\x00rest\n", []string{in, self}},
		{"#!" + in + " arg\x00rest\n", []string{in, "arg", self}},
		{"#!" + in + " " + strings.Repeat("z", 300), []string{in, strings.Repeat("z", 255-len(in)-3), self}},
		{"#!" + in + "\r\n", nil},
		{"#!", nil}, {"#!\n", nil}, {"#!   \n", nil}, {"#! " + strings.Repeat(" ", 300) + in, nil},
		{"#!" + strings.Repeat("x", 300), nil}, {"#!/nowhere/to/be/found\n", nil}, {"#! /nowhere/to/be/found x\n", nil},
		{"", nil}, {"#", nil}, {"echo hello\n", nil}, {" #!" + in, nil},
	} {
		f.add(t, "script", []byte(c.text))
		got, err := f.script(t, self, argv)
		if c.want == nil {
			require.Error(t, err, "%q", c.text)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, append(c.want, argv[1:]...), got)
	}
	f.add(t, "script", []byte("#!"+in+" -x\n"))
	got, err := f.script(t, self, []string{"only"})
	require.NoError(t, err)
	require.Equal(t, []string{in, "-x", self}, got)
	require.Zero(t, f.opened)
}

// TestRandomScripts puts first lines together from pieces and compares with Linux.
func TestRandomScripts(t *testing.T) {
	f := newFiles(t)
	prog, err := elftest.Args(linux.ET_EXEC)
	require.NoError(t, err)
	in := f.add(t, "i", prog)
	pieces := []string{" ", "\t", "\n", "\x00", in, "x", "-a b", "#!", strings.Repeat(" ", 120), strings.Repeat("y", 120), "\xff", "\v"}
	rnd := rand.New(rand.NewPCG(3, 4))
	good := 0
	for range 400 {
		text := "#!" + strings.Repeat(" ", rnd.IntN(3))
		if rnd.IntN(3) > 0 {
			text += in + " "
		}
		for range rnd.IntN(6) {
			text += pieces[rnd.IntN(len(pieces))]
		}
		if rnd.IntN(4) == 0 && len(text) < 250 { // right at the end of what is looked at
			text += strings.Repeat("z", 253+rnd.IntN(5)-len(text))
		}
		if _, err := f.script(t, f.add(t, "script", []byte(text)), []string{"0", "1"}); err == nil {
			good++
		}
	}
	require.Greater(t, good, 50, "too few of the scripts are any good")
}

func TestNestedScripts(t *testing.T) {
	f := newFiles(t)
	prog, err := elftest.Args(linux.ET_EXEC)
	require.NoError(t, err)
	prev := f.add(t, "i", prog)
	for depth := 1; depth <= 7; depth++ {
		prev = f.add(t, "s"+strings.Repeat("x", depth), []byte("#!"+prev+" "+strings.Repeat("arg", depth)+"\n"))
		got, err := f.script(t, prev, []string{"0", "1"})
		if depth > maxScripts {
			require.Equal(t, linux.ELOOP, Errno(err))
			require.ErrorContains(t, err, "more than 5 deep")
			continue
		}
		require.NoError(t, err)
		require.Len(t, got, 2*depth+2)
	}
	loop := f.add(t, "loop", nil)
	f.add(t, "loop", []byte("#!"+loop+"\n"))
	_, err = f.script(t, loop, []string{"0"})
	require.Equal(t, linux.ELOOP, Errno(err))
}

func TestInaccessibleScript(t *testing.T) {
	f := newFiles(t)
	args, err := NewArgs([]string{"x"}, nil, 8<<20)
	require.NoError(t, err)
	_, err = Prepare(&Request{Path: "/dev/fd/3", File: &memFile{data: []byte("#!/bin/sh\n")}, Opener: f, Args: args, Cred: me(), Inaccessible: true}, nil)
	require.Equal(t, linux.ENOENT, Errno(err))
	require.ErrorContains(t, err, "FD_CLOEXEC")
}
