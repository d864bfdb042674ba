package mm

import (
	"fmt"

	"dinos/dkernel/frame"
	"dinos/kernel/paging"
)

// check verifies what must always be true of a tree, and returns the first thing that is not.
func (t *tree) check() error {
	var c counts
	n := 0
	binds := map[*binding]int32{}
	var prev *vma
	for v := t.first; v != nil; prev, v = v, v.next {
		n++
		switch {
		case v.prev != prev:
			return fmt.Errorf("%#x: wrong prev", v.start)
		case v.start >= v.end || v.start&(pageSize-1) != 0 || v.end&(pageSize-1) != 0 || v.end > userTop:
			return fmt.Errorf("bad range %#x-%#x", v.start, v.end)
		case prev != nil && prev.end > v.start:
			return fmt.Errorf("%#x overlaps %#x", prev.end, v.start)
		case v.flags&vmRepeat != 0 && (v.bind == nil || v.pages() == 1):
			return fmt.Errorf("%#x repeats for no reason", v.start)
		case t.at(v.start) != v || t.at(v.end-1) != v:
			return fmt.Errorf("%#x is not found", v.start)
		}
		if v.bind != nil {
			binds[v.bind]++
		}
		one := tree{sys: t.sys}
		one.tally(v.flags, v.pages(), 1)
		c.total += one.count.total
		c.data += one.count.data
		c.stack += one.count.stack
		c.exec += one.count.exec
		c.shared += one.count.shared
		c.locked += one.count.locked
		c.account += one.count.account
	}
	if n != t.n || prev != t.last {
		return fmt.Errorf("%d mappings in the list, want %d", n, t.n)
	}
	for b, n := range binds {
		if b.vmas.Load() != n {
			return fmt.Errorf("binding %d counts %d mappings, has %d", b.handle, b.vmas.Load(), n)
		}
	}
	if err := t.root.check(); err != nil {
		return err
	}
	err := t.checkPages(&c)
	if err == nil && c != t.count {
		err = fmt.Errorf("counts are %+v, want %+v", t.count, c)
	}
	return err
}

func (n *vma) check() error {
	if n == nil {
		return nil
	}
	if err := n.left.check(); err != nil {
		return err
	}
	if err := n.right.check(); err != nil {
		return err
	}
	if d := n.left.tall() - n.right.tall(); d < -1 || d > 1 {
		return fmt.Errorf("%#x is out of balance", n.start)
	}
	if n.left != nil && n.left.parent != n || n.right != nil && n.right.parent != n {
		return fmt.Errorf("%#x is not the parent of its children", n.start)
	}
	if n.left != nil && n.left.start >= n.start || n.right != nil && n.right.start <= n.start {
		return fmt.Errorf("%#x is out of order", n.start)
	}
	gap, height := n.maxGap, n.height
	if n.update(); gap != n.maxGap || height != n.height {
		return fmt.Errorf("%#x has gap %#x and height %d, want %#x and %d", n.start, gap, height, n.maxGap, n.height)
	}
	return nil
}

// checkPages checks every entry of the page tables against its vma.
func (t *tree) checkPages(c *counts) (err error) {
	_ = t.pt.Walk(0, 1<<47, func(l paging.Leaf) bool {
		f := t.sys.frames.FromPhys(l.PA)
		v := t.at(l.VA)
		switch {
		case v == nil || v.start > l.VA:
			err = fmt.Errorf("page %#x is in no mapping", l.VA)
		case f == frame.None || t.sys.frames.Refs(f) < 1:
			err = fmt.Errorf("page %#x has a frame that is free", l.VA)
		case (l.Attr&paging.Present != 0) != (v.flags&vmProt != 0):
			err = fmt.Errorf("page %#x: present is wrong", l.VA)
		case (l.Attr&paging.NoExecute == 0) != (v.flags&vmExec != 0):
			err = fmt.Errorf("page %#x: no-execute is wrong", l.VA)
		case (l.Attr&paging.Writable != 0) != (v.flags&vmWrite != 0 && l.Attr&leafOwned != 0):
			err = fmt.Errorf("page %#x: writable is wrong: %#x in %#x", l.VA, l.Attr, v.flags)
		case l.Attr&leafOwn != 0 && (v.flags&vmShared != 0 || v.flags&vmAnon == 0):
			err = fmt.Errorf("page %#x cannot be private", l.VA)
		case l.Attr&leafOwned == 0 && v.flags&vmMixed == 0:
			err = fmt.Errorf("page %#x is shared in a mapping that has no such pages", l.VA)
		case l.Attr&(leafOwn|leafOwned) == leafOwn|leafOwned && t.sys.frames.Refs(f) != 1:
			err = fmt.Errorf("page %#x is owned by %d", l.VA, t.sys.frames.Refs(f))
		}
		if l.Attr&leafOwn != 0 {
			c.own++
		} else if f != t.sys.zero {
			c.file++
		}
		return err == nil
	})
	return err
}

// dump is the tree's state as far as it is the same in all replicas.
func (t *tree) dump() string {
	out := fmt.Sprintf("%+v %#x %#x %d %d\n", t.count, t.brkStart, t.brk, t.epoch.Load(), t.forking)
	for v := t.first; v != nil; v = v.next {
		h := uint64(0)
		if v.bind != nil {
			h = v.bind.handle
		}
		out += fmt.Sprintf("%#x-%#x %#x %d %d\n", v.start, v.end, v.flags, h, v.off)
	}
	_ = t.pt.Walk(0, 1<<47, func(l paging.Leaf) bool {
		out += fmt.Sprintf("%#x %#x %#x\n", l.VA, l.PA, l.Attr)
		return true
	})
	return out
}
