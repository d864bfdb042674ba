package nr_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"

	"dinos/nr"
)

// dict is a map from short keys to byte strings. Keys fit the op; values have any size and travel as operands.
type dict struct{ m map[uint64]string }

// dictOp asks for Key, or with an operand sets it.
type dictOp struct{ Key uint64 }

func (d *dict) Read(op dictOp) string                  { return d.m[op.Key] }
func (d *dict) Apply(op dictOp) string                 { return d.ApplyOperand(op, nil) }
func (d *dict) ReadOperand(op dictOp, _ []byte) string { return d.Read(op) }
func (d *dict) ApplyOperand(op dictOp, value []byte) string {
	old := d.m[op.Key]
	d.m[op.Key] = string(value) // a copy: value is valid during the call only
	return old
}

// Snapshot and Restore let a replica on another kernel start from this one.
func (d *dict) Snapshot(w io.Writer) error {
	for k, v := range d.m {
		if err := binary.Write(w, binary.LittleEndian, []uint64{k, uint64(len(v))}); err != nil {
			return err
		}
		if _, err := io.WriteString(w, v); err != nil {
			return err
		}
	}
	return nil
}

func (d *dict) Restore(r io.Reader) error {
	for {
		var h [2]uint64
		if err := binary.Read(r, binary.LittleEndian, &h); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		v, err := io.ReadAll(io.LimitReader(r, int64(h[1]&(1<<30-1))))
		if err != nil || uint64(len(v)) != h[1] {
			return fmt.Errorf("value of %d bytes, want %d, %v", len(v), h[1], err)
		}
		d.m[h[0]] = string(v)
	}
}

// A hash map in four parts with a log each: updates of keys in different parts do not meet.
func Example_hashMap() {
	in, err := nr.New(nr.Config[dictOp, string]{
		New:        func(int) nr.Structure[dictOp, string] { return &dict{map[uint64]string{}} },
		Logs:       4,
		Route:      func(op dictOp) int { return int(op.Key % 4) },
		ArenaBytes: 1 << 16,
	})
	if err != nil {
		log.Fatal(err)
	}
	var handles []*nr.Handle[dictOp, string]
	for range 2 {
		rep, err := in.First()
		if err != nil {
			log.Fatal(err)
		}
		h, err := rep.Register()
		if err != nil {
			log.Fatal(err)
		}
		handles = append(handles, h)
	}
	if _, err := handles[0].ApplyOperand(dictOp{7}, []byte("seven")); err != nil {
		log.Fatal(err)
	}
	old, err := handles[1].ApplyOperand(dictOp{7}, []byte("sieben"))
	if err != nil {
		log.Fatal(err)
	}
	now, err := handles[0].Read(dictOp{7})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(old, now)
	// Output: seven sieben
}
