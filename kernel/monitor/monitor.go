// Package monitor is the prompt on a kernel's console: a few commands that show what the kernel is doing. It also keeps a
// kernel without other work alive.
package monitor

import (
	"bufio"
	"fmt"
	"io"
	"runtime"
	"strings"

	"dinos/kernel/machine"
)

type command struct {
	name, help string
	run        func(*machine.Machine)
}

func commands() []command {
	return []command{
		{"machine", "what was found at boot", func(m *machine.Machine) { m.Describe() }},
		{"status", "time, threads, memory", status},
		{"calls", "system calls of the Go runtime, by number", calls},
		{"stacks", "all goroutines", stacks},
		{"gc", "collect garbage and give memory back", func(*machine.Machine) { machine.FreeMemory() }},
		{"off", "end the machine", func(*machine.Machine) { machine.PowerOff() }},
	}
}

// Run serves the console until it fails.
func Run(m *machine.Machine) error {
	in, err := m.Console()
	if err != nil {
		return err
	}
	list := commands()
	r := bufio.NewReader(in)
	for {
		fmt.Printf("%s> ", m.Name)
		line, err := readLine(r)
		if err != nil {
			return fmt.Errorf("console: %w", err)
		}
		serve(m, list, line)
	}
}

func serve(m *machine.Machine, list []command, line string) {
	name := strings.TrimSpace(line)
	if name == "" {
		return
	}
	for _, c := range list {
		if c.name == name {
			c.run(m)
			return
		}
	}
	if name != "help" {
		fmt.Printf("no command %q\n", name)
	}
	for _, c := range list {
		fmt.Printf("  %-8s %s\n", c.name, c.help)
	}
}

// maxLine bounds what is kept of a line.
const maxLine = 200

// readLine reads up to a carriage return, which is what the Enter key of a terminal sends, or a line feed, echoing.
func readLine(r io.ByteReader) (string, error) {
	var b []byte
	for {
		c, err := r.ReadByte()
		switch {
		case err != nil:
			return "", err
		case c == '\r' || c == '\n':
			fmt.Println()
			return string(b), nil
		case (c == 8 || c == 127) && len(b) > 0:
			b = b[:len(b)-1]
			fmt.Print("\b \b")
		case c >= ' ' && c < 127 && len(b) < maxLine:
			b = append(b, c)
			fmt.Print(string(rune(c)))
		}
	}
}

func status(m *machine.Machine) {
	var st runtime.MemStats
	runtime.ReadMemStats(&st)
	now, peak := machine.Threads()
	total, free := machine.Memory()
	fmt.Printf("up %v, %d CPUs, %d goroutines on %d threads (at most %d)\n", machine.Now().Round(1e6), runtime.NumCPU(), runtime.NumGoroutine(), now, peak)
	fmt.Printf("memory %d MiB, %d MiB free; Go heap %d KiB in use, %d collections\n", total>>20, free>>20, st.HeapInuse>>10, st.NumGC)
}

func calls(*machine.Machine) {
	for nr, n := range machine.SystemCalls() {
		if n > 0 {
			fmt.Printf("  %4d %10d\n", nr, n)
		}
	}
}

func stacks(*machine.Machine) {
	b := make([]byte, 64<<10)
	fmt.Printf("%s\n", b[:runtime.Stack(b, true)])
}
