package nr_test

import (
	"bytes"
	"fmt"
	"log"

	"dinos/nr"
)

// A counter on two replicas. counter is plain sequential code, see the top of nr_test.go.
func Example_counter() {
	in, err := nr.New(nr.Config[add, uint64]{New: newCounter})
	if err != nil {
		log.Fatal(err)
	}
	a, err := in.First()
	if err != nil {
		log.Fatal(err)
	}
	ha, err := a.Register()
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		if _, err := ha.Apply(add{10}); err != nil {
			log.Fatal(err)
		}
	}

	// A second replica, from a snapshot of the first.
	var snapshot bytes.Buffer
	if _, err := a.Donate(&snapshot, nil); err != nil {
		log.Fatal(err)
	}
	b, err := in.Join(&snapshot)
	if err != nil {
		log.Fatal(err)
	}
	hb, err := b.Register()
	if err != nil {
		log.Fatal(err)
	}
	sum, err := hb.Apply(add{12})
	if err != nil {
		log.Fatal(err)
	}
	same, err := ha.Read(add{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sum, same)
	// Output: 42 42
}
