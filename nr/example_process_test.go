package nr_test

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"dinos/nr"
)

// childEnv makes this test binary the second process of Example_twoProcesses.
const childEnv = "NR_EXAMPLE_FILE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

// mapFile maps the first n bytes of a file that processes share.
func mapFile(path string, n int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(n)); err != nil {
		return nil, err
	}
	return syscall.Mmap(int(f.Fd()), 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

// child is the second process: it joins from the snapshot and adds.
func child(dir string) error {
	cfg := nr.Config[add, uint64]{New: newCounter}
	size, err := cfg.Size()
	if err != nil {
		return err
	}
	mem, err := mapFile(filepath.Join(dir, "log"), int(size))
	if err != nil {
		return err
	}
	snapshot, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	if err != nil {
		return err
	}
	in, err := nr.Open(mem, cfg)
	if err != nil {
		return err
	}
	rep, err := in.Join(bytes.NewReader(snapshot))
	if err != nil {
		return err
	}
	h, err := rep.Register()
	if err != nil {
		return err
	}
	sum, err := h.Apply(add{2})
	if err != nil {
		return err
	}
	fmt.Println("child:", sum)
	return rep.Close()
}

// Two processes share a counter through a file. Each has a replica in its own heap; the file holds the log only.
func Example_twoProcesses() {
	dir, err := os.MkdirTemp("", "nr-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := nr.Config[add, uint64]{New: newCounter}
	size, err := cfg.Size()
	if err != nil {
		log.Fatal(err)
	}
	mem, err := mapFile(filepath.Join(dir, "log"), int(size))
	if err != nil {
		log.Fatal(err)
	}
	if err := nr.Format(mem, cfg); err != nil {
		log.Fatal(err)
	}
	in, err := nr.Open(mem, cfg)
	if err != nil {
		log.Fatal(err)
	}
	rep, err := in.First()
	if err != nil {
		log.Fatal(err)
	}
	h, err := rep.Register()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := h.Apply(add{40}); err != nil {
		log.Fatal(err)
	}

	snapshot, err := os.Create(filepath.Join(dir, "snapshot"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := rep.Donate(snapshot, nil); err != nil {
		log.Fatal(err)
	}
	if err := snapshot.Close(); err != nil {
		log.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		log.Fatalf("%v: %s", err, out)
	}
	fmt.Print(string(out))

	sum, err := h.Read(add{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("parent:", sum)
	// Output:
	// child: 42
	// parent: 42
}
