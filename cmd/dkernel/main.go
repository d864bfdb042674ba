// Command dkernel is the data kernel.
package main

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"dinos/kernel/machine"
)

func main() {
	fmt.Println("hello", runtime.NumCPU(), time.Now())
	fmt.Println(machine.Start())
	fmt.Println("started", time.Now())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			m := map[string]int{}
			for i := 0; i < 30000; i++ {
				m[fmt.Sprint(i)] = i
			}
			s := 0
			for _, v := range m {
				s += v
			}
			fmt.Println("g", g, len(m), s)
		}()
	}
	wg.Wait()
	fmt.Println("done", time.Now())
	func() {
		defer func() { fmt.Println("recovered", recover()) }()
		var p *int
		*p = 1
	}()
	for i := 0; i < 3; i++ {
		time.Sleep(100 * time.Millisecond)
		fmt.Println("tick", time.Now())
	}
	x := 0
	go func() {
		for {
			x++
		}
	}()
	for i := 0; i < 3; i++ {
		runtime.GC()
		fmt.Println("gc", time.Now())
	}
}
