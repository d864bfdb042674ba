package mm

import (
	"testing"

	"pgregory.net/rapid"
)

// The tree against a list of pages: what is where, and where there is room.
func TestTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const low, pages = uint64(minAddr), 200
		var tr vmas
		var used [pages]bool
		guard := map[uint64]bool{}
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			i := rapid.IntRange(0, pages-1).Draw(t, "page")
			addr := low + uint64(i)*k
			v := tr.at(addr)
			if v != nil && v.start <= addr {
				for a := v.start; a < v.end; a += k {
					used[(a-low)/k] = false
				}
				delete(guard, v.start)
				tr.remove(v)
			} else {
				n := rapid.IntRange(1, 5).Draw(t, "n")
				w := tr.take()
				w.start, w.end = addr, addr+k
				used[i] = true
				for j := i + 1; j < min(i+n, pages) && !used[j]; j++ {
					used[j] = true
					w.end += k
				}
				if rapid.IntRange(0, 9).Draw(t, "stack") == 0 {
					w.flags |= vmGrowsDown
					guard[w.start] = true
				}
				tr.insert(w, v)
			}
			if err := tr.root.check(); err != nil {
				t.Fatal(err)
			}
			n := 0
			for v := tr.first; v != nil; v = v.next {
				n++
			}
			if n != tr.n {
				t.Fatalf("%d in the list, want %d", n, tr.n)
			}
			// Room, by looking at each page. A stack's guard reaches over all of this small world.
			size := uint64(rapid.IntRange(1, 6).Draw(t, "size"))
			var places []uint64
			for j := uint64(0); j+size <= pages; j++ {
				free := true
				for l := j; l < j+size; l++ {
					free = free && !used[l]
				}
				for l := j; l < pages && free; l++ {
					if used[l] {
						free = !guard[low+l*k]
						break
					}
				}
				if free {
					places = append(places, low+j*k)
				}
			}
			first, last := uint64(0), uint64(0)
			if len(places) > 0 {
				first, last = places[0], places[len(places)-1]
			}
			if got := tr.lowest(size*k, low, low+pages*k); got != first {
				t.Fatalf("lowest place for %d pages is %#x, want %#x", size, got, first)
			}
			if got := tr.highest(size*k, low, low+pages*k); got != last {
				t.Fatalf("highest place for %d pages is %#x, want %#x", size, got, last)
			}
		}
	})
}
