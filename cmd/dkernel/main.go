// Command dkernel is the data kernel.
package main

import (
	"fmt"
	"runtime"
	"time"

	_ "dinos/kernel/machine"
)

func main() {
	fmt.Println("hello", runtime.NumCPU(), time.Now())
	for i := 0; i < 3; i++ {
		time.Sleep(100 * time.Millisecond)
		fmt.Println("tick", time.Now())
	}
}
