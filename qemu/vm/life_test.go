package vm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ownerEnv makes the test binary a process that owns a machine and a run directory, prints QEMU's PID and the directory,
// and sleeps.
const ownerEnv = "DINOS_VM_TEST_OWNER"

func owner(arg string) {
	img, base, _ := strings.Cut(arg, "|")
	d, err := newRunDir(base)
	if err == nil {
		var v *VM
		if v, err = Start(Config{Image: img, Append: "spin", Memory: 64 << 20}); err == nil {
			fmt.Println(v.PID(), d.Path)
			time.Sleep(time.Hour)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestOwnerDies kills the owner of a machine outright: QEMU goes too, and the next run removes the directory.
func TestOwnerDies(t *testing.T) {
	start(t, "pass", nil).Close() // skips without QEMU
	img, err := guest()
	require.NoError(t, err)
	base := filepath.Join(t.TempDir(), "runs")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerEnv+"="+img+"|"+base)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	var pid int
	var dir string
	_, err = fmt.Sscan(line, &pid, &dir)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "socket"), nil, 0o600))

	mine, err := newRunDir(base)
	require.NoError(t, err)
	require.DirExists(t, dir, "its owner lives")
	require.DirExists(t, filepath.Join("/proc", fmt.Sprint(pid)))

	require.NoError(t, cmd.Process.Kill())
	cmd.Wait()
	require.Eventually(t, func() bool { return dead(pid) }, patience, 10*time.Millisecond)
	another, err := newRunDir(base)
	require.NoError(t, err)
	require.NoDirExists(t, dir)
	require.DirExists(t, mine.Path)
	require.NoError(t, another.Close())
	require.NoError(t, mine.Close())
	require.NoError(t, mine.Close())
	left, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Empty(t, left)
}

// dead reports whether the process has ended: an orphan may stay a zombie until init reaps it.
func dead(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z")
}

func TestRunDirRefusesOpenBase(t *testing.T) {
	base := t.TempDir()
	require.NoError(t, os.Chmod(base, 0o777))
	_, err := newRunDir(base)
	require.ErrorContains(t, err, "is not a directory of mode 0700")

	base = filepath.Join(t.TempDir(), "b")
	old := filepath.Join(base, newPrefix+"old")
	require.NoError(t, os.MkdirAll(old, 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(base, newPrefix+"fresh"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(base, "other"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(base, runPrefix+"nolock"), 0o700))
	require.NoError(t, os.Chtimes(old, time.Now(), time.Now().Add(-2*newGrace)))
	require.NoError(t, os.Chmod(base, 0o700))
	d, err := newRunDir(base)
	require.NoError(t, err)
	defer d.Close()
	require.NoDirExists(t, old)
	require.NoDirExists(t, filepath.Join(base, runPrefix+"nolock"))
	require.DirExists(t, filepath.Join(base, newPrefix+"fresh"), "its owner may be about to lock it")
	require.DirExists(t, filepath.Join(base, "other"))
}

func TestConsole(t *testing.T) {
	c := newConsole(failingWriter{})
	r, w := io.Pipe()
	fed := make(chan struct{})
	go func() { c.feed(r); close(fed) }()
	say := func(s string) {
		_, err := io.WriteString(w, s)
		require.NoError(t, err)
	}
	say("one\r\ntw")
	line, err := c.Line(context.Background(), 0)
	require.NoError(t, err)
	require.Equal(t, "one", line)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = c.Line(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	say("o\n" + strings.Repeat("x", maxLine+1))
	require.Eventually(t, func() bool { return len(c.Tail()) == 4 }, patience, time.Millisecond)
	require.Equal(t, []string{"one", "two", strings.Repeat("x", maxLine), "x"}, c.Tail())
	w.Close()
	<-fed
	line, err = c.Line(context.Background(), 3)
	require.NoError(t, err)
	require.Equal(t, "x", line)
	_, err = c.Line(context.Background(), 4)
	require.ErrorIs(t, err, io.EOF)
}

func TestConsoleDrops(t *testing.T) {
	c := newConsole(nil)
	c.add([]byte(strings.Repeat("\n", maxLines+1) + "last\n"))
	_, err := c.Line(context.Background(), 0)
	require.ErrorIs(t, err, ErrDropped)
	line, n, err := c.Find(context.Background(), maxLines, func(s string) bool { return s != "" })
	require.NoError(t, err)
	require.Equal(t, "last", line)
	require.Equal(t, maxLines+1, n)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestDetectAccel(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	intel := file("processor\t: 0\nflags\t\t: fpu vmx sse\n")
	amd := file("flags\t\t: fpu svm\n")
	none := file("vendor\t: x\nflags\t\t: fpu vmxnot hypervisor\n")
	device := file("")
	for _, c := range []struct {
		cpuinfo, device string
		kvm             bool
		why             string
	}{
		{intel, device, true, "KVM: vmx"},
		{amd, device, true, "KVM: svm"},
		{none, device, false, "neither vmx nor svm"},
		{file(""), device, false, "neither vmx nor svm"},
		{intel, "/nowhere", false, "TCG: open /nowhere"},
		{"/nowhere", device, false, "TCG: open /nowhere"},
	} {
		a := detectAccel(c.cpuinfo, c.device)
		require.Equal(t, c.kvm, a.KVM)
		require.Contains(t, a.Why, c.why)
	}
	require.Equal(t, []string{"-accel", "tcg,thread=multi"}, Accel{}.args())
	require.Equal(t, "host", Accel{KVM: true}.cpu())
}

func TestArgs(t *testing.T) {
	img := filepath.Join(t.TempDir(), "img")
	require.NoError(t, os.WriteFile(img, nil, 0o600))
	c, err := Config{Image: img, Accel: &Accel{}, Append: "a=b c", Initrd: img, Devices: []string{"edu"}, Extra: []string{"-trace", "x"}, Name: "a,b"}.withDefaults()
	require.NoError(t, err)
	got := strings.Join(c.args(), " ")
	for _, want := range []string{
		"-name a,,b ", "-machine microvm,pcie=on", "-cpu max,-erms ", "-smp 1,maxcpus=2 ", "-m 512M ", "-append a=b c ", "-initrd " + img,
		"-device edu", "-trace x", "iobase=0xf4,iosize=4",
	} {
		require.Contains(t, got, want)
	}
	c.CPUs, c.GDB = 5, "tcp::1"
	got = strings.Join(c.args(), " ")
	require.Contains(t, got, "-smp 5,maxcpus=5 ")
	require.Contains(t, got, "-gdb tcp::1")
}

func TestParseRegisters(t *testing.T) {
	out := "\r\nCPU#0\r\nRAX=0 RBX=1\r\nRSI=0 RDI=0 RBP=ffffffff80000010 RSP=ffffffff80000020\r\nRIP=ffffffff80261f80 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\nXMM00=0\r\n" +
		"\r\nCPU#12\r\nEAX=0\r\nEBP=10 ESP=20\r\nEIP=0000fff0 EFL=2 CPL=3 HLT=0\r\n"
	require.Equal(t, []cpuState{
		{0, 0xffffffff80261f80, 0xffffffff80000020, 0xffffffff80000010, 0, true},
		{12, 0xfff0, 0x20, 0x10, 3, false},
	}, parseRegisters(out))
	require.Empty(t, parseRegisters("no such thing"))
	require.Equal(t, []uint64{1, 2, 3}, parseWords("ff: 0x01 0x02\r\n0f: 0x3\r\n"))
	require.Empty(t, parseWords("Cannot access memory"))
	require.NotContains(t, withoutVectors(out), "XMM")
}

func TestSymbolsErrors(t *testing.T) {
	_, err := OpenSymbols("/nowhere")
	require.Error(t, err)
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("text"), 0o600))
	_, err = OpenSymbols(text)
	require.Error(t, err)
	var none *Symbols
	require.Equal(t, "?", none.Name(1))
}
