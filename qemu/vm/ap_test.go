package vm

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dinos/boot/realmode"
	"dinos/kernel/testproto"
)

// TestStartAP starts a second vCPU through the code of boot/realmode, which QEMU's loader places at its page. The guest
// checks the registers that the package promises.
func TestStartAP(t *testing.T) {
	const page = 0x70000
	start(t, "pass", nil).Close() // skips without QEMU
	img, err := guest()
	require.NoError(t, err)
	f, err := elf.Open(img)
	require.NoError(t, err)
	defer f.Close()
	syms, err := f.Symbols()
	require.NoError(t, err)
	addr := map[string]uint64{}
	for _, s := range syms {
		addr[s.Name] = s.Value
	}
	b := make([]byte, realmode.PageSize)
	require.NoError(t, realmode.Install(b, page))
	require.NoError(t, realmode.SetMailbox(b, realmode.Mailbox{
		CR3: 0x101000, Entry: addr["apEntry"], Stack: addr["main.Stack"] + 4096, Arg: 0x1122334455667788,
	}))
	file := filepath.Join(t.TempDir(), "page")
	require.NoError(t, os.WriteFile(file, b, 0o600))
	// Not on the other machines: their firmware clears the page before it starts the kernel.
	v := start(t, "ap", func(c *Config) {
		c.Machine, c.CPUs = MicroVM, 2
		c.Devices = []string{fmt.Sprintf("loader,file=%s,addr=%#x,force-raw=on", file, page)}
	})
	e, err := v.Wait(deadline(t, patience))
	require.NoError(t, err)
	require.Equal(t, testproto.ExitPass, e)
	require.Equal(t, []string{"hello", "ap", "up"}, v.Console().Tail())
}
