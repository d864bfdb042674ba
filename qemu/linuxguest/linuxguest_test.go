package linuxguest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"

	"dinos/qemu/linuxguest/marks"
	"dinos/qemu/vm"
)

// patience is how long a guest may take on a busy machine before it counts as hung.
const patience = 5 * time.Minute

// bzImage makes an image with payload after two real-mode sectors and 64 bytes of
// protected-mode code.
func bzImage(payload []byte) []byte {
	image := make([]byte, 3*512+64, 3*512+64+len(payload))
	image[setupSects] = 2
	copy(image[headerMagic:], "HdrS")
	binary.LittleEndian.PutUint16(image[headerVersion:], 0x20f)
	binary.LittleEndian.PutUint32(image[payloadOffset:], 64)
	binary.LittleEndian.PutUint32(image[payloadLength:], uint32(len(payload)))
	return append(image, payload...)
}

func lz4Payload(data []byte) []byte {
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	_ = w.Apply(lz4.LegacyOption(true))
	_, _ = w.Write(data)
	_ = w.Close()
	return binary.LittleEndian.AppendUint32(b.Bytes(), uint32(len(data)))
}

func gzipPayload(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

func TestExtract(t *testing.T) {
	elf := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel"), 10_000)...)
	for name, image := range map[string][]byte{
		"ELF": elf, "LZ4": bzImage(lz4Payload(elf)), "gzip": bzImage(gzipPayload(elf)), "uncompressed": bzImage(elf),
	} {
		got, err := Extract(image)
		require.NoError(t, err, name)
		require.Equal(t, elf, got, name)
	}
}

func TestExtractErrors(t *testing.T) {
	elf := append([]byte("\x7fELF"), make([]byte, 1000)...)
	good := bzImage(lz4Payload(elf))
	patch := func(at int, b ...byte) []byte {
		image := bytes.Clone(good)
		copy(image[at:], b)
		return image
	}
	for _, c := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"empty", nil, "neither an ELF file nor a bzImage"},
		{"text", bytes.Repeat([]byte("text"), 1000), "neither an ELF file nor a bzImage"},
		{"old protocol", patch(headerVersion, 7, 2), "boot protocol 2.07"},
		{"truncated", good[:len(good)-1], "truncated"},
		{"payload outside", patch(payloadOffset, 0xff, 0xff, 0xff, 0xff), "truncated"},
		{"no payload", patch(payloadLength, 0, 0, 0, 0), "truncated"},
		{"unknown compression", bzImage([]byte("(\xb5/\xfd zstd")), "payload begins with 28 b5 2f fd: neither LZ4 nor gzip"},
		{"size", patch(len(good)-4, 7), "uncompressed, want"},
		{"huge size", patch(len(good)-4, 0xff, 0xff, 0xff, 0xff), "claims to have 4294967295 bytes"},
		{"damaged", patch(3*512+64+4, 0xff, 0xff, 0xff, 0x7f), "payload"},
		{"not ELF", bzImage(lz4Payload([]byte("hello"))), "not an ELF file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Extract(c.image)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(bzImage(lz4Payload([]byte("\x7fELF"))))
	f.Add(bzImage(gzipPayload([]byte("\x7fELF"))))
	f.Fuzz(func(t *testing.T, image []byte) {
		if len(image) > 4 && binary.LittleEndian.Uint32(image[len(image)-4:]) > 1<<20 {
			return // allowed, but slow
		}
		if elf, err := Extract(image); err == nil {
			require.True(t, bytes.HasPrefix(elf, elfMagic))
		}
	})
}

func TestReleases(t *testing.T) {
	dir := t.TempDir()
	_, ok := cached(dir)
	require.False(t, ok)
	for _, r := range []string{"6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "5.99.0-50-cloud-amd64", ".new-99"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, r), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, r, "vmlinux"), nil, 0o644))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "9.0"), 0o755)) // incomplete
	k, err := FindKernel(t.Context(), dir, io.Discard)
	require.NoError(t, err)
	require.Equal(t, Kernel{"6.1.0-10-cloud-amd64", filepath.Join(dir, "6.1.0-10-cloud-amd64", "vmlinux")}, k)
}

func TestNoApt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := FindKernel(t.Context(), t.TempDir(), io.Discard)
	require.ErrorContains(t, err, "linux-image-cloud-amd64")
	require.ErrorContains(t, err, "apt-cache is not installed")
}

func TestParse(t *testing.T) {
	const begin = "noise\r\n" + marks.Begin + "6.1\n"
	for _, c := range []struct {
		console, output string
		exit            int
		err             string
	}{
		{begin + "out\n\n" + marks.Exit + "0\n", "out\n", 0, ""},
		{begin + "no newline\n" + marks.Exit + "7\nkernel says bye", "no newline", 7, ""},
		{begin + "\n" + marks.Exit + "137\n", "", 137, ""},
		{begin + "\n" + marks.Exit + "1\nis what I print\n" + marks.Exit + "2\n", "\n" + marks.Exit + "1\nis what I print", 2, ""},
		{"Kernel panic\n", "", 0, "did not get to process 1"},
		{marks.Fail + "mount /proc: no\n", "", 0, "did not get to process 1: mount /proc: no"},
		{begin + "\n" + marks.Fail + "exec format error\n", "\n" + marks.Fail + "exec format error\n", 0, "did not end: exec format error"},
		{begin + "half", "half", 0, "did not end"},
		{begin + "\n" + marks.Exit + "x\n", "", 0, "bad exit status"},
	} {
		out, exit, err := parse([]byte(c.console))
		require.Equal(t, c.output, string(out))
		require.Equal(t, c.exit, exit)
		if c.err == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.err)
		}
	}
}

func TestBadOptions(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	foreign := bytes.Clone(self)
	foreign[18] = 0xb7 // EM_AARCH64
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "no program"},
		{Options{Program: self, Path: "x"}, "both Options.Program and Options.Path"},
		{Options{Path: "/nonexistent"}, "program: open /nonexistent"},
		{Options{Program: []byte("#!/bin/sh\nexec /bin/true\n")}, "program Options.Program: bad magic number"},
		{Options{Program: foreign}, "EM_AARCH64"},
		{Options{Path: "/bin/sh"}, "program /bin/sh is dynamically linked"},
		{Options{Kernel: "/bin/sh/x"}, "no program"},
	} {
		_, _, err := RunProgram(t.Context(), c.o)
		require.ErrorContains(t, err, c.want)
	}
}

// boot runs a program of testdata in the guest. It is a long test, unless the
// kernel has been downloaded before.
func boot(t *testing.T, o Options) ([]byte, int, error) {
	t.Helper()
	dir, err := CacheDir()
	require.NoError(t, err)
	if _, ok := cached(dir); !ok && os.Getenv("DINOS_LONG") == "" {
		t.Skip("no Linux kernel in the cache; DINOS_LONG=1 downloads it")
	}
	o.Path = filepath.Join(t.TempDir(), "probe")
	require.NoError(t, BuildStatic(t.Context(), "./testdata/probe", o.Path))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return RunProgram(ctx, o)
}

func TestProgram(t *testing.T) {
	out, exit, err := boot(t, Options{SMP: 2, MemMiB: 256, Args: []string{"exit", "3", "with space", ""}})
	require.NoError(t, err)
	require.Equal(t, 3, exit)
	require.Equal(t, `args ["exit" "3" "with space" ""] cpus 2`+"\nto stderr", string(out))
}

func TestProgramSignalled(t *testing.T) {
	out, exit, err := boot(t, Options{Args: []string{"kill"}})
	require.NoError(t, err)
	require.Equal(t, 128+9, exit)
	require.NotEmpty(t, out)
}

func TestKernelPanics(t *testing.T) {
	_, _, err := boot(t, Options{Append: "rdinit=/nonexistent init=/nonexistent"})
	var guest *vm.GuestError
	require.ErrorAs(t, err, &guest)
	require.Equal(t, vm.Reset, guest.Failure)
	require.ErrorContains(t, err, "did not get to process 1")
}

func TestBench(t *testing.T) {
	_, _, err := boot(t, Options{Args: []string{"exit", "0"}}) // or skips
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := RunBench(ctx, Options{Args: []string{"-quick", "now", "yield"}})
	require.NoError(t, err)
	require.Len(t, r, 2)
	require.Equal(t, 1, r[0].CPUs)
	_, err = RunBench(ctx, Options{Args: []string{"nonsense"}})
	require.ErrorContains(t, err, `no benchmark matches ["nonsense"]`)
}
