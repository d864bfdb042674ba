package elftest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/boot/emit/emittest"
	"dinos/kernel/linux"
)

// run executes a program here, on Linux.
func run(t *testing.T, program []byte, err error, args ...string) (string, syscall.WaitStatus) {
	t.Helper()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(path, program, 0o755))
	cmd := exec.Command(path, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return out.String(), cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func TestPrograms(t *testing.T) {
	for _, typ := range []uint16{linux.ET_EXEC, linux.ET_DYN} {
		p, err := Hello(typ, "hello, world\n", 42)
		out, status := run(t, p, err)
		require.Equal(t, "hello, world\n", out)
		require.Equal(t, 42, status.ExitStatus())

		p, err = Calls(typ, 1000, linux.SYS_GETPID)
		_, status = run(t, p, err)
		require.Zero(t, status)
		p, err = Calls(typ, 3, linux.SYS_WRITE, Imm(1), At("bss"), Imm(2))
		out, status = run(t, p, err)
		require.Equal(t, "\x00\x00\x00\x00\x00\x00", out)
		require.Zero(t, status)

		p, err = Spin(typ, 1000, 7)
		_, status = run(t, p, err)
		require.Equal(t, 7, status.ExitStatus())

		p, err = Fault(typ, "ud2", 0x0f, 0x0b)
		_, status = run(t, p, err)
		require.Equal(t, syscall.SIGILL, status.Signal())
		p, err = Fault(typ, "hlt", 0xf4)
		_, status = run(t, p, err)
		require.Equal(t, syscall.SIGSEGV, status.Signal())

		p, err = Args(typ)
		out, status = run(t, p, err, "", "two", "three words here")
		require.Equal(t, "\x00two\x00three words here\x00", out[len(out)-22:])
		require.Equal(t, 4, status.ExitStatus())

		p, err = DumpStart(typ)
		out, status = run(t, p, err, "an argument")
		require.Zero(t, status)
		var e Entry
		require.NoError(t, binary.Read(bytes.NewReader([]byte(out)), binary.LittleEndian, &e))
		require.EqualValues(t, 2, out[EntrySize], "argc")
		require.Zero(t, (e.RSP+uint64(len(out)-EntrySize))%4096, "the stack ends at a page")
		require.Contains(t, out, "\x00an argument\x00")
	}
	_, err := Build(linux.ET_EXEC, func(a *Asm) { a.Jump(Always, "nowhere") })
	require.ErrorContains(t, err, "nowhere")
}

func TestListing(t *testing.T) {
	for name, code := range map[string]func(*Asm){
		"hello": func(a *Asm) { hello(a, "text", 1) }, "dumpStart": dumpStart, "args": args,
		"all registers": func(a *Asm) {
			a.Label("here")
			for r := RAX; r <= R15; r++ {
				a.Set(r, 5)
				a.Set(r, 0xffff_ffff_ffff_fff0)
				a.Set(r, 0x1234_5678_9abc)
				a.Push(r)
				a.Lea(r, "here")
				a.Test(r)
				for s := RAX; s <= R15; s++ {
					a.Mov(r, s)
					a.Add(r, s)
					a.Sub(r, s)
				}
			}
		},
	} {
		for _, typ := range []uint16{linux.ET_EXEC, linux.ET_DYN} {
			_, l, err := BuildListed(typ, code)
			require.NoError(t, err)
			_, err = emittest.Listing(l, nil)
			require.NoError(t, err, name)
		}
	}
}

func TestFile(t *testing.T) {
	f := File{Type: linux.ET_DYN, Entry: 7, Segments: []Segment{
		{Type: linux.PT_LOAD, Flags: linux.PF_R, Off: 0x200, Vaddr: 0x1200, Filesz: 4, Memsz: 8, Align: 4096, Data: []byte("data")},
	}, Raw: func(b []byte) []byte { return append(b, "tail"...) }}
	b := f.Bytes()
	e, err := elf.NewFile(bytes.NewReader(b))
	require.NoError(t, err)
	require.Equal(t, elf.FileHeader{Class: elf.ELFCLASS64, Data: elf.ELFDATA2LSB, Version: 1, ByteOrder: binary.LittleEndian,
		Type: elf.ET_DYN, Machine: elf.EM_X86_64, Entry: 7}, e.FileHeader)
	require.Equal(t, elf.ProgHeader{Type: elf.PT_LOAD, Flags: elf.PF_R, Off: 0x200, Vaddr: 0x1200, Paddr: 0x1200, Filesz: 4, Memsz: 8,
		Align: 4096}, e.Progs[0].ProgHeader)
	require.Equal(t, "datatail", string(b[0x200:]))
}
