// Command probe tells how it was started and ends as its arguments say.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

func main() {
	fmt.Printf("args %q cpus %d\n", os.Args[1:], runtime.NumCPU())
	switch os.Args[1] {
	case "exit":
		fmt.Fprint(os.Stderr, "to stderr")
		code, err := strconv.Atoi(os.Args[2])
		if err != nil {
			panic(err)
		}
		os.Exit(code)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "sleep":
		for range 2 {
			time.Sleep(5 * time.Second)
			fmt.Println("tick")
		}
	}
}
