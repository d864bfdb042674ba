// Command gc keeps the garbage collector, goroutines on several threads, channels and timers busy, and prints what does not depend
// on timing.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"
)

type node struct {
	left, right *node
	value       int
}

func tree(depth int) *node {
	if depth == 0 {
		return &node{value: 1}
	}
	return &node{tree(depth - 1), tree(depth - 1), depth}
}

func (n *node) sum() int {
	if n == nil {
		return 0
	}
	return n.value + n.left.sum() + n.right.sum()
}

func main() {
	runtime.GOMAXPROCS(4)
	var wg sync.WaitGroup
	sums := make(chan int, 100)
	for range 8 {
		wg.Go(func() {
			for range 20 {
				sums <- tree(12).sum()
			}
		})
	}
	go func() { wg.Wait(); close(sums) }()
	total := 0
	for s := range sums {
		total += s
	}
	fmt.Println("trees:", total)

	words := map[string]int{}
	var mu sync.Mutex
	for i := range 4 {
		wg.Go(func() {
			for j := range 5000 {
				mu.Lock()
				words[fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i), byte(j)}))[:4]]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	var keys []string
	for k := range words {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	fmt.Println("words:", len(keys), strings.Join(keys[:5], " "))

	ticks := 0
	for t := time.NewTicker(time.Millisecond); ticks < 20; ticks++ {
		<-t.C
	}
	fmt.Println("ticks:", ticks)

	spin := make(chan bool)
	go func() { // never calls anything: must be preempted
		x := 0
		for i := 0; i < 1<<62; i++ {
			x += i
		}
		spin <- x == 0
	}()
	for range 3 {
		runtime.GC()
	}
	fmt.Println("collected beside a loop")

	defer func() {
		fmt.Println("recovered:", recover())
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.NumGC < 3 {
			os.Exit(1)
		}
		os.Exit(7)
	}()
	var p *node
	fmt.Println(p.value)
}
