package procfs

import (
	"fmt"

	"dinos/dkernel/vfs"
	"dinos/dkernel/vfs/pseudo"
	"dinos/kernel/linux"
)

// NewSys makes a /sys with what programs ask of it: the processors, the size of huge pages (there are none), and an empty
// /sys/fs/cgroup. cpus returns the ids of the processors that are online; possible is how many there can be.
func NewSys(v *vfs.VFS, cpus func() []int, possible int) *vfs.FS {
	root := &pseudo.Map{}
	cpu := root.Sub("devices").Sub("system").Sub("cpu")
	online := func() []uint64 {
		var set []uint64
		for _, c := range cpus() {
			for c/64 >= len(set) {
				set = append(set, 0)
			}
			set[c/64] |= 1 << (c % 64)
		}
		return set
	}
	here := func(b []byte) []byte { return append(b, list(online())+"\n"...) }
	may := "0\n"
	if possible > 1 {
		may = fmt.Sprintf("0-%d\n", possible-1)
	}
	cpu.Add("online", pseudo.Gen(here))
	cpu.Add("possible", pseudo.Text(may))
	cpu.Add("present", pseudo.Gen(here))
	cpu.Add("offline", pseudo.Text("\n"))
	cpu.Add("kernel_max", pseudo.Text(fmt.Sprintf("%d\n", max(possible-1, 0))))
	for i := range possible {
		t := cpu.Sub(fmt.Sprintf("cpu%d", i)).Sub("topology")
		for _, f := range []string{"physical_package_id", "die_id"} {
			t.Add(f, pseudo.Text("0\n"))
		}
		t.Add("core_id", pseudo.Text(fmt.Sprintf("%d\n", i)))
		t.Add("thread_siblings_list", pseudo.Text(fmt.Sprintf("%d\n", i)))
		t.Add("core_siblings_list", pseudo.Text(may))
	}
	node := root.Sub("devices").Sub("system").Sub("node")
	node.Add("online", pseudo.Text("0\n"))
	node.Add("possible", pseudo.Text("0\n"))
	n0 := node.Sub("node0")
	n0.Add("cpulist", pseudo.Gen(here))
	huge := root.Sub("kernel").Sub("mm").Sub("transparent_hugepage")
	huge.Add("hpage_pmd_size", pseudo.Text("2097152\n"))
	huge.Add("enabled", pseudo.Text("always madvise [never]\n"))
	huge.Add("defrag", pseudo.Text("always defer defer+madvise madvise [never]\n"))
	huge.Add("shmem_enabled", pseudo.Text("always within_size advise [never] deny force\n"))
	root.Sub("fs").Sub("cgroup")
	root.Sub("class").Sub("net")
	root.Sub("block")
	return pseudo.New(v, "sysfs", linux.SYSFS_MAGIC, &pseudo.Node{Perm: 0o555, Dir: root}).FS
}
