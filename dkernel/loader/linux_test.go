package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/dkernel/cred"
	"dinos/dkernel/loader/elftest"
	"dinos/kernel/linux"
	"dinos/kernel/ureg"
)

// The tests of this file compare the loader with the Linux that runs them: it executes the same file, traced and without random
// layout, and stops it before its first instruction.

// stopped is a process at its first instruction.
type stopped struct {
	regs  syscall.PtraceRegs
	maps  string
	stat  []uint64 // fields of /proc/PID/stat, [i] is field i of proc(5)
	auxv  []byte
	stack []byte // from RSP to the end
	err   error  // execve failed
	died  bool   // execve killed the process
}

// traceExec executes a file here. It runs on a thread of its own, which ends with it.
func traceExec(t testing.TB, path string, argv, env []string) *stopped {
	done := make(chan *stopped)
	go func() {
		runtime.LockOSThread() // for ptrace and for the personality; the goroutine ends locked, and the thread with it
		syscall.RawSyscall(syscall.SYS_PERSONALITY, linux.ADDR_NO_RANDOMIZE, 0, 0)
		done <- traceHere(path, argv, env)
	}()
	s := <-done
	var no syscall.Errno
	if errors.As(s.err, &no) && (no == syscall.EPERM || no == syscall.ENOSYS) {
		t.Skipf("no ptrace here: %v", s.err)
	}
	return s
}

func traceHere(path string, argv, env []string) *stopped {
	s := &stopped{}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		s.err = err
		return s
	}
	defer null.Close()
	fd := null.Fd()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{Env: env, Files: []uintptr{fd, fd, fd}, Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		s.err = err
		return s
	}
	var ws syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &ws, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if !ws.Stopped() || ws.StopSignal() != syscall.SIGTRAP {
		s.died = true
	} else {
		s.err = s.look(pid)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if !ws.Exited() && !ws.Signaled() {
		_, _ = syscall.Wait4(pid, &ws, 0, nil)
	}
	return s
}

func (s *stopped) look(pid int) error {
	if err := syscall.PtraceGetRegs(pid, &s.regs); err != nil {
		return err
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	maps, err := os.ReadFile(dir + "maps")
	if err != nil {
		return err
	}
	end := uint64(0)
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		name := ""
		if len(f) > 5 {
			name = f[5]
		}
		switch name {
		case "[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]":
			continue
		case "[stack]":
			_, e, _ := strings.Cut(f[0], "-")
			end, _ = strconv.ParseUint(e, 16, 64)
			name = " [stack]"
		case "":
		default:
			name = " file"
		}
		off, _ := strconv.ParseUint(f[2], 16, 64)
		from, to, _ := strings.Cut(f[0], "-")
		a, _ := strconv.ParseUint(from, 16, 64)
		b, _ := strconv.ParseUint(to, 16, 64)
		s.maps += fmt.Sprintf("%x-%x %s %x%s\n", a, b, f[1], off, name)
	}
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	s.stat = make([]uint64, 3)
	for _, v := range strings.Fields(rest) {
		n, _ := strconv.ParseUint(v, 10, 64)
		s.stat = append(s.stat, n)
	}
	if s.auxv, err = os.ReadFile(dir + "auxv"); err != nil {
		return err
	}
	mem, err := os.Open(dir + "mem")
	if err != nil {
		return err
	}
	defer mem.Close()
	s.stack = make([]byte, end-s.regs.Rsp)
	_, err = mem.ReadAt(s.stack, int64(s.regs.Rsp))
	return err
}

// aux returns a value of an auxiliary vector, and where it is.
func aux(v []byte, tag uint64) (value uint64, at int) {
	for i := 0; i+16 <= len(v); i += 16 {
		if binary.LittleEndian.Uint64(v[i:]) == tag {
			return binary.LittleEndian.Uint64(v[i+8:]), i
		}
	}
	return 0, -1
}

// same is a System that has what Linux told the process, and no vDSO.
func (s *stopped) same() *System {
	var words []uint64
	if random, _ := aux(s.auxv, linux.AT_RANDOM); random >= s.regs.Rsp && random-s.regs.Rsp+16 <= uint64(len(s.stack)) {
		at := s.stack[random-s.regs.Rsp:]
		words = append(words, binary.LittleEndian.Uint64(at), binary.LittleEndian.Uint64(at[8:]))
	}
	sys := &System{Random: func() uint64 {
		if len(words) == 0 {
			return 0
		}
		w := words[0]
		words = words[1:]
		return w
	}}
	sys.HWCap, _ = aux(s.auxv, linux.AT_HWCAP)
	sys.HWCap2, _ = aux(s.auxv, linux.AT_HWCAP2)
	sys.MinSigStack, _ = aux(s.auxv, linux.AT_MINSIGSTKSZ)
	sys.VDSO, sys.VVar, sys.VDSOSize = &memObject{data: make([]byte, pageSize), name: "[vdso]"}, &memObject{name: "[vvar]"}, pageSize
	return sys
}

// files is an Opener, and where Linux finds the same files.
type files struct {
	dir    string
	data   map[string][]byte // by path
	opened int
}

func newFiles(t testing.TB) *files {
	return &files{dir: t.TempDir(), data: map[string][]byte{}}
}

func (f *files) add(t testing.TB, name string, data []byte) string {
	path := filepath.Join(f.dir, name)
	if f.data[path] == nil || !bytes.Equal(f.data[path], data) {
		require.NoError(t, os.WriteFile(path, data, 0o755))
		f.data[path] = data
	}
	return path
}

func (f *files) OpenExec(path string) (File, error) {
	data, ok := f.data[path]
	if !ok {
		for name := range f.data {
			if strings.HasPrefix(path, name+"/") {
				return nil, linux.ENOTDIR
			}
		}
		return nil, linux.ENOENT
	}
	f.opened++
	return &memFile{data: data, opened: &f.opened, attr: Attr{Mode: 0o755}}, nil
}

// me are the credentials of this process.
func me() *cred.Cred {
	c := *cred.Root()
	c.UID, c.EUID = uint32(os.Getuid()), uint32(os.Geteuid())
	c.GID, c.EGID = uint32(os.Getgid()), uint32(os.Getegid())
	c.FSUID, c.FSGID, c.SUID, c.SGID = c.EUID, c.EGID, c.EUID, c.EGID
	return &c
}

// memory is how much this machine has, swap included: more than that Linux does not promise (vm.overcommit_memory 0).
func memory(t testing.TB) uint64 {
	var info syscall.Sysinfo_t
	require.NoError(t, syscall.Sysinfo(&info))
	return (info.Totalram + info.Totalswap) * uint64(info.Unit)
}

func stackLimit(t testing.TB) uint64 {
	var l syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_STACK, &l))
	return l.Cur
}

// exec prepares and loads a file with this package.
func (f *files) exec(t testing.TB, path string, argv, env []string, sys *System) (*Program, *Image, *space, error) {
	limit := stackLimit(t)
	args, err := NewArgs(argv, env, limit)
	if err != nil {
		return nil, nil, nil, err
	}
	file, err := f.OpenExec(path)
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := Prepare(&Request{Path: path, File: file, Opener: f, Args: args, Cred: me(), Personality: linux.ADDR_NO_RANDOMIZE,
		StackLimit: limit}, sys)
	if err != nil {
		require.Zero(t, f.opened, "a file is left open")
		return nil, nil, nil, err
	}
	defer p.Close()
	sp := &space{layout: p.Layout, low: os.Geteuid() == 0, limit: memory(t)}
	img, err := p.Load(sp)
	return p, img, sp, err
}

// compare executes a file both ways. It reports whether Linux could.
func (f *files) compare(t testing.TB, path string, argv, env []string) bool {
	s := traceExec(t, path, argv, env)
	sys := s.same()
	p, img, sp, err := f.exec(t, path, argv, env, sys)
	switch {
	case s.err != nil:
		var no syscall.Errno
		require.ErrorAs(t, s.err, &no)
		require.EqualValues(t, no, Errno(err), "Linux: %v, here: %v", s.err, err)
		return false
	case s.died:
		if err == nil {
			require.Fail(t, "Linux cannot execute it", "here:\n%s", sp.list())
		}
		return false
	}
	require.NoError(t, err)
	_, at := aux(s.auxv, linux.AT_RSEQ_ALIGN)
	_, hwcap3 := aux(s.auxv, 29)
	if at < 0 || hwcap3 >= 0 {
		t.Skipf("another auxiliary vector than that of Linux 6.3 to 6.18")
	}
	if merge(s.maps) != merge(sp.own()) {
		require.Equal(t, s.maps, sp.own(), "mappings")
	}
	if len(p.elf.loads) > 0 && p.elf.codeEnd > 0 {
		require.Equal(t, []uint64{s.stat[26], s.stat[27], s.stat[28]}, []uint64{img.CodeStart, img.CodeEnd, img.StackStart}, "code and stack")
		require.Equal(t, s.stat[45:52], []uint64{img.DataStart, img.DataEnd, img.BrkStart, img.ArgStart, img.ArgEnd, img.EnvStart, img.EnvEnd}, "stat")
	}
	require.Equal(t, s.stat[47], sp.brk)
	s.compareStart(t, img, sp)
	return true
}

// own is list without the vDSO.
func (s *space) own() string {
	var out strings.Builder
	for line := range strings.Lines(s.list()) {
		if !strings.Contains(line, "[v") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// compareStart compares registers, stack and auxiliary vector, but for the address of the vDSO.
func (s *stopped) compareStart(t testing.TB, img *Image, sp *space) {
	var f ureg.Frame
	img.Start(&f)
	require.Equal(t, s.regs.Rip, f.RIP)
	require.Equal(t, s.regs.Rsp, f.RSP)
	require.Equal(t, s.regs.Eflags, f.RFLAGS)
	require.Equal(t, [15]uint64{s.regs.Rax, s.regs.Rbx, s.regs.Rcx, s.regs.Rdx, s.regs.Rsi, s.regs.Rdi, s.regs.Rbp, s.regs.R8, s.regs.R9,
		s.regs.R10, s.regs.R11, s.regs.R12, s.regs.R13, s.regs.R14, s.regs.R15},
		[15]uint64{f.RAX, f.RBX, f.RCX, f.RDX, f.RSI, f.RDI, f.RBP, f.R8, f.R9, f.R10, f.R11, f.R12, f.R13, f.R14, f.R15})
	require.Equal(t, s.regs.Fs_base, f.FSBase)
	require.Equal(t, s.regs.Gs_base, f.GSBase)

	stack := make([]byte, len(s.stack))
	_, err := sp.CopyIn(stack, f.RSP)
	require.NoError(t, err)
	i := bytes.Index(s.stack, s.auxv)
	require.GreaterOrEqual(t, i, 0)
	clear(s.stack[i+8 : i+16])
	clear(stack[i+8 : i+16])
	require.Equal(t, s.stack, stack, "the stack")
	require.Equal(t, len(s.auxv), len(img.Auxv))
	require.Equal(t, s.auxv[16:], img.Auxv[16:], "the auxiliary vector")
}

// programs are ELF files for the comparison.
func programs(t testing.TB) map[string][]byte {
	must := func(b []byte, err error) []byte {
		require.NoError(t, err)
		return b
	}
	out := map[string][]byte{
		"exec":       must(elftest.Hello(linux.ET_EXEC, "hello", 0)),
		"static-pie": must(elftest.Hello(linux.ET_DYN, "hello", 0)),
	}
	if gcc, err := exec.LookPath("gcc"); err == nil {
		for name, flags := range map[string][]string{"glibc": {"-static"}, "glibc-pie": {"-static-pie"},
			"glibc-aligned": {"-static-pie", "-Wl,-z,max-page-size=0x200000"}, "execstack": {"-static", "-Wl,-z,execstack"}} {
			path := filepath.Join(t.TempDir(), name)
			cmd := exec.Command(gcc, append(flags, "-o", path, "-x", "c", "-")...)
			cmd.Stdin = strings.NewReader("static char bss[100000]; char data[5000] = {1}; int main(void) { return bss[5] + data[7]; }")
			if msg, err := cmd.CombinedOutput(); err != nil {
				t.Logf("no %s here: %s", name, msg)
				continue
			}
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			out[name] = data
		}
	}
	return out
}

func TestAgainstLinux(t *testing.T) {
	f := newFiles(t)
	for name, data := range programs(t) {
		t.Run(name, func(t *testing.T) {
			path := f.add(t, name, data)
			require.True(t, f.compare(t, path, []string{name}, nil))
			require.True(t, f.compare(t, path, []string{"another name", "", "b", "c"}, []string{"PATH=/bin", "EMPTY=", "x"}))
			require.True(t, f.compare(t, path, nil, nil), "without argv[0]")
			for n := range 17 {
				require.True(t, f.compare(t, path, []string{strings.Repeat("x", n)}, []string{"A=1"}), "alignment %d", n)
			}
			require.True(t, f.compare(t, path, []string{strings.Repeat("long", 30000), "y"}, []string{strings.Repeat("e", 70000)}))
			many := make([]string, 30000)
			require.True(t, f.compare(t, path, many, many), "more pointers than the stack has at first")
		})
	}
}

// TestLimits finds the same largest argument and the same largest sum as Linux.
func TestLimits(t *testing.T) {
	f := newFiles(t)
	path := f.add(t, "program", programs(t)["exec"])
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, env := range []bool{false, true} {
		try := func(s ...string) bool {
			if env {
				return f.compare(t, path, []string{"p"}, s)
			}
			return f.compare(t, path, s, nil)
		}
		require.True(t, try(x(maxArgString-1)))
		require.False(t, try(x(maxArgString)))
		// The limit is strings, pointers and the path; 100 strings of about its hundredth part.
		left := int(ArgLimit(stackLimit(t))) - 100*9 - len(path) - 1
		if env {
			left -= 2 + 8 // "p"
		}
		big := make([]string, 100)
		for i := range big {
			n := left / (100 - i)
			if n > maxArgString-1 {
				t.Skip("the stack limit is too large to try")
			}
			big[i] = x(n)
			left -= n
		}
		require.True(t, try(big...))
		big[99] += "x"
		require.False(t, try(big...))
	}
}
