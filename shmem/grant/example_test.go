package grant_test

import (
	"fmt"

	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// The ckernel gives a slice to a dkernel, dies, and its next life takes back what the dead dkernel had.
func Example() {
	c := layout.Config{Machines: 2, RingBytes: 4096, HostRingBytes: 4096, InboxSlots: 16, Logs: 1, LogBytes: 4096}
	c.Size, _ = layout.MinSize(c, 4)
	memory, _ := region.New(region.Slab(int(c.Size)))
	rack, _ := layout.Format(memory, c, 1)

	table, _ := grant.Format(rack, true)
	dkernel := grant.Owner{Peer: 1, Generation: 1}
	_ = table.Online(1, 1, 2)
	names, _ := table.GrantSlices(dkernel, 1, nil)

	reader, _ := grant.Open(rack) // on the dkernel
	fmt.Println(names[0].Unit, reader.Holds(names[0], dkernel))

	table, _, _ = grant.Recover(rack)
	held, _ := table.Reclaim(1, 1)
	fmt.Println(held, table.Counts().DirtySlices, "dirty")

	ckernel := grant.Owner{Peer: layout.Ckernel, Generation: 2}
	names, _ = table.StartZero(ckernel, 1, names[:0])
	fmt.Println(table.Zeroed(ckernel, names[0]), table.Counts().FreeSlices, "free", table.Audit(nil).Err())
	// Output:
	// slice 0 <nil>
	// [slice 0] 1 dirty
	// <nil> 4 free <nil>
}
