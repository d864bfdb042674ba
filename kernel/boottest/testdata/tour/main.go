// Command tour does a little of everything that programs do, and prints what came of it. It prints the same on Linux and on dinos.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		child(os.Args[1])
		return
	}
	dir, err := os.MkdirTemp("", "tour")
	must(err)
	defer os.RemoveAll(dir)
	for _, t := range []struct {
		name string
		f    func(dir string) error
	}{{"files", files}, {"names", names}, {"pipes", pipes}, {"processes", processes}, {"signals", signals}, {"threads", threads},
		{"memory", memory}, {"faults", faults}, {"timers", timers}, {"errors", errnos}} {
		err := t.f(dir)
		fmt.Printf("%s: %v\n", t.name, err)
	}
}

func must(err error) {
	if err != nil {
		fmt.Println("fatal:", err)
		os.Exit(1)
	}
}

func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// child is what the program does when it runs itself.
func child(what string) {
	switch what {
	case "exit":
		os.Exit(42)
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		must(err)
	case "env":
		fmt.Print(os.Getenv("TOUR"))
	case "wait":
		fmt.Println("ready")
		select {}
	}
}

func files(dir string) error {
	name := filepath.Join(dir, "a")
	text := strings.Repeat("0123456789", 10000)
	if err := os.WriteFile(name, []byte(text), 0o640); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("end"); err != nil {
		return err
	}
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 99998); err != nil {
		return err
	}
	fmt.Printf("  %q\n", b)
	if err := f.Truncate(1 << 30); err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	fmt.Println(" ", st.Size(), st.Mode(), st.Sys().(*syscall.Stat_t).Blocks < 1000)
	n, err := f.ReadAt(b, 1<<29)
	fmt.Println(" ", n, err, b)
	_, err = f.ReadAt(b, 1<<30-2)
	return check(errors.Is(err, io.EOF), "read at the end: %v", err)
}

func names(dir string) error {
	for _, d := range []string{"x/y/z", "x/w"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	must(os.Symlink("../y/z", filepath.Join(dir, "x/w/l")))
	must(os.WriteFile(filepath.Join(dir, "x/w/l/f"), []byte("f"), 0o600))
	must(os.Link(filepath.Join(dir, "x/y/z/f"), filepath.Join(dir, "x/g")))
	must(os.Rename(filepath.Join(dir, "x/y/z/f"), filepath.Join(dir, "x/h")))
	err := filepath.Walk(dir, func(p string, i os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fmt.Printf("  %s %v %d\n", rel, i.Mode(), i.Sys().(*syscall.Stat_t).Nlink)
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Println(" ", os.Remove(filepath.Join(dir, "x/y")) != nil, os.Remove(filepath.Join(dir, "x/y/z")))
	return os.RemoveAll(filepath.Join(dir, "x"))
}

func pipes(string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	go func() {
		for i := range 1000 {
			fmt.Fprintf(w, "line %d\n", i)
		}
		w.Close()
	}()
	n, last := 0, ""
	for s := bufio.NewScanner(r); s.Scan(); n++ {
		last = s.Text()
	}
	fmt.Println(" ", n, last)
	r2, w2, err := os.Pipe()
	if err != nil {
		return err
	}
	r2.Close()
	signal.Ignore(syscall.SIGPIPE)
	_, err = w2.Write([]byte("x"))
	return check(errors.Is(err, syscall.EPIPE), "write to nobody: %v", err)
}

func processes(string) error {
	err := exec.Command(self(), "exit").Run()
	var e *exec.ExitError
	if !errors.As(err, &e) || e.ExitCode() != 42 {
		return fmt.Errorf("exit: %v", err)
	}
	c := exec.Command(self(), "cat")
	text := strings.Repeat("all of this through two pipes\n", 10000)
	c.Stdin = strings.NewReader(text)
	out, err := c.Output()
	if err != nil || string(out) != text {
		return fmt.Errorf("cat: %d bytes, %v", len(out), err)
	}
	c = exec.Command(self(), "env")
	c.Env = []string{"TOUR=of the world"}
	out, err = c.Output()
	fmt.Printf("  %q %v\n", out, err)
	c = exec.Command(self(), "wait")
	p, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	must(c.Start())
	line, _ := bufio.NewReader(p).ReadString('\n')
	must(c.Process.Signal(syscall.SIGTERM))
	err = c.Wait()
	fmt.Printf("  %q %v\n", line, err)
	err = exec.Command("/no/such/program").Run()
	return check(errors.Is(err, os.ErrNotExist), "run of nothing: %v", err)
}

func self() string { return os.Args[0] }

func signals(string) error {
	ch := make(chan os.Signal, 10)
	signal.Notify(ch, syscall.SIGUSR1, syscall.SIGHUP)
	defer signal.Stop(ch)
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP} {
		must(syscall.Kill(os.Getpid(), s))
		select {
		case got := <-ch:
			fmt.Println(" ", got)
		case <-time.After(10 * time.Second):
			return fmt.Errorf("%v did not come", s)
		}
	}
	return nil
}

func threads(string) error {
	runtime.GOMAXPROCS(4)
	var mu sync.Mutex
	var wg sync.WaitGroup
	sum := 0
	for i := range 50 {
		wg.Go(func() {
			if i%5 == 0 {
				runtime.LockOSThread()
			}
			for j := range 1000 {
				mu.Lock()
				sum += j
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Println(" ", sum)
	return nil
}

func memory(string) error {
	b, err := syscall.Mmap(-1, 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for i := range b {
		b[i] = byte(i)
	}
	must(syscall.Mprotect(b[:4096], syscall.PROT_READ))
	must(syscall.Madvise(b[8192:12288], syscall.MADV_DONTNEED))
	fmt.Println(" ", b[5], b[8192+5], b[12288+5])
	if err := syscall.Munmap(b); err != nil {
		return err
	}
	var keep [][]byte
	for range 100 {
		keep = append(keep, bytes.Repeat([]byte("x"), 100_000))
	}
	runtime.GC()
	fmt.Println(" ", len(keep), string(keep[99][:3]))
	return nil
}

func faults(string) (err error) {
	defer func() {
		r := recover()
		fmt.Println(" ", r)
	}()
	var p *int
	*p = 1
	return errors.New("a nil pointer was written to")
}

func timers(string) error {
	start := time.Now()
	time.Sleep(20 * time.Millisecond)
	d := time.Since(start)
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Add(1)
		time.AfterFunc(time.Duration(5-i)*20*time.Millisecond, wg.Done)
	}
	wg.Wait()
	return check(d >= 20*time.Millisecond, "slept %v", d)
}

func errnos(dir string) error {
	_, err := os.Open(filepath.Join(dir, "none"))
	fmt.Println(" ", errors.Is(err, syscall.ENOENT))
	_, err = os.ReadFile(dir)
	fmt.Println(" ", errors.Is(err, syscall.EISDIR))
	fmt.Println(" ", syscall.Close(999), syscall.Mkdir(dir, 0o700), syscall.Rmdir("/"))
	_, err = syscall.Read(-1, nil)
	fmt.Println(" ", err)
	_, _, e := syscall.Syscall(syscall.SYS_WRITE, 1, 1, 10)
	fmt.Println(" ", e)
	_, _, e = syscall.Syscall(9999, 0, 0, 0)
	fmt.Println(" ", e)
	return nil
}
