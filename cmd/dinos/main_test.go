package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/qemu/vm"
	"dinos/qemu/vmtest"
)

var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "dinos-cmd-test")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// guest is the image of the test kernel of qemu/vm, made by the build command.
var guest = sync.OnceValues(func() (string, error) {
	img := filepath.Join(scratch, "guest.elf")
	_, err := dinos("", "build", "--entry", "entry64", "--record", "main.Record", "../../qemu/vm/testdata/guest", img)
	return img, err
})

// dinos runs a command line and returns what it prints.
func dinos(stdin string, args ...string) (string, error) {
	var out bytes.Buffer
	err := run(args, strings.NewReader(stdin), &out)
	return out.String(), err
}

func TestImage(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(in, []byte("#!/bin/sh"), 0o600))
	require.NoError(t, os.WriteFile(out, []byte("old"), 0o600))
	for _, c := range []struct {
		in, want string
	}{
		{in, "in: image: not an ELF file: it starts with 23 21 2f 62"},
		{filepath.Join(dir, "none"), "no such file"},
		{dir, "is not a regular file, want a linked kernel"},
	} {
		_, err := dinos("", "image", c.in, out)
		require.ErrorContains(t, err, c.want)
		require.Equal(t, exitOther, exitStatus(err))
	}
	b, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "old", string(b), "a failure leaves what was there")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2)

	require.NoError(t, os.Remove(in)) // go build does not replace what it did not make
	cmd := exec.Command("go", "build", "-ldflags", "-T -0x7fe00000 -E entry64", "-o", in, "../../boot/image/testdata/kernel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	msg, err := cmd.CombinedOutput()
	require.NoError(t, err, string(msg))
	_, err = dinos("", "image", "--record", "main.Record", in, out)
	require.NoError(t, err)
	_, err = readKernel(in)
	require.ErrorContains(t, err, "is not bootable")
	k, err := readKernel(out)
	require.NoError(t, err)
	require.NotZero(t, k.entry)

	// The test kernel of boot/image checks the contract of the trampoline itself.
	vmtest.RequireQEMU(t)
	for _, machine := range []string{"microvm", "q35", "pc"} {
		got, err := dinos("", "boot", out, "--machine", machine, "--mem", "32M", "--timeout", "1m")
		require.NoError(t, err)
		require.Equal(t, "ok\n", got)
	}
}

func TestBoot(t *testing.T) {
	vmtest.RequireQEMU(t)
	img, err := guest()
	require.NoError(t, err)

	out, err := dinos("hello there.", "boot", img, "--append", "echo", "--smp", "2", "--mem", "64")
	require.NoError(t, err)
	require.Equal(t, "hello\r\necho\r\nhello there.", out)

	_, err = dinos("", "boot", img, "--append", "crash")
	require.EqualError(t, err, "kernel: guest crashed")
	require.Equal(t, exitGuest, exitStatus(err))

	_, err = dinos("", "boot", img, "--append", "spin", "--timeout", "1s")
	require.ErrorContains(t, err, "guest made no progress")
	require.ErrorContains(t, err, "vCPU 0: ") // on a busy host it may not have come far

	var h *vm.HostError
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"boot", img, "--smp", "99"}, "99 vCPUs, want 1 to 64"},
		{[]string{"boot", img, "--machine", "virt"}, "want microvm, q35 or pc"},
		{[]string{"boot", "/nowhere"}, "image: open /nowhere"},
		{[]string{"boot", img, "--initrd", "/nowhere"}, "initrd: open /nowhere"},
	} {
		_, err = dinos("", c.args...)
		require.ErrorAs(t, err, &h)
		require.ErrorContains(t, err, c.want)
		require.Equal(t, exitOther, exitStatus(err))
	}
}

func TestGDB(t *testing.T) {
	vmtest.RequireQEMU(t)
	img, err := guest()
	require.NoError(t, err)
	_, err = dinos("", "gdb", img, "stray")
	require.ErrorContains(t, err, `unexpected argument "stray": arguments for gdb follow --`)
	_, err = dinos("", "gdb", "/nowhere", "--listen", "tcp:localhost:1")
	require.ErrorContains(t, err, "image: open /nowhere")
	if _, err := exec.LookPath("gdb"); err != nil {
		t.Skip("gdb is not installed")
	}
	_, err = dinos("", "gdb", "main.go")
	require.ErrorContains(t, err, "main.go is not a kernel image")

	console := filepath.Join(t.TempDir(), "console")
	out, err := dinos("", "gdb", img, "--append", "spin", "--console", console, "--",
		"-nx", "-batch", "-ex", "info symbol $pc", "-ex", "break spin", "-ex", "continue", "-ex", "bt")
	require.NoError(t, err, out)
	require.Contains(t, out, "entry64 in section .text")
	require.Regexp(t, `(?s)#0 +spin \(\).*#1 .* in inner \(\).*#2 .* in outer \(\).*#3 .* in entry64 \(\)`, out)
	b, err := os.ReadFile(console)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(b), "hello\r\nspin\r\n"), "%q", b)
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"no-such-command"}, {"image", "one"}, {"boot"}, {"boot", "a", "b"}, {"boot", "a", "--mem", "many"}, {"build", "x"}, {"gdb"}, {"version", "x"},
	} {
		_, err := dinos("", args...)
		require.Error(t, err, "%v", args)
		require.Equal(t, exitOther, exitStatus(err))
	}
	out, err := dinos("", "--help")
	require.NoError(t, err)
	for _, name := range []string{"boot", "build", "gdb", "image", "version"} {
		require.Contains(t, out, "\n  "+name+" ")
	}
	out, err = dinos("", "version")
	require.NoError(t, err)
	require.Contains(t, out, "dinos ")
}

func TestSize(t *testing.T) {
	for text, want := range map[string]uint64{"64": 64 << 20, "512M": 512 << 20, "2G": 2 << 30, "4096K": 4 << 20, "1T": 1 << 40} {
		var s size
		require.NoError(t, s.Set(text))
		require.Equal(t, want, uint64(s), text)
	}
	for _, text := range []string{"", "M", "0", "-1", "1.5G", "16777216T", "99999999999999999999", "12MB"} {
		var s size
		require.ErrorContains(t, s.Set(text), "want a size like 512M or 2G", text)
	}
	for want, n := range map[string]size{"512M": 512 << 20, "1G": 1 << 30, "1025K": 1025 << 10, "7": 7} {
		require.Equal(t, want, n.String())
	}
}

func TestExitStatus(t *testing.T) {
	require.Equal(t, exitGuest, exitStatus(fmt.Errorf("x: %w", &vm.GuestError{})))
	require.Equal(t, exitOther, exitStatus(&vm.HostError{Err: errors.New("x")}))
}
