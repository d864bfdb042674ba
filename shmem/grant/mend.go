package grant

import (
	"dinos/shmem/layout"
	"dinos/shmem/region"
)

// Mend writes the header of a table anew whose entries are sound: a successor of the ckernel that found it damaged would take the rack
// for empty otherwise, and give away what is in use. It returns how many entries are sound; if none is, there is no table of this rack, and
// nothing is changed. Nobody may be writing the table.
func Mend(k *layout.Rack) (sound uint64, err error) {
	r, err := attach(k)
	if err != nil {
		return 0, err
	}
	for i := range r.units() {
		if _, err := r.load(i); err == nil {
			sound++
		}
	}
	if sound == 0 {
		return 0, nil
	}
	for off, v := range map[region.Off]uint64{offSlices: r.slices, offMachines: uint64(r.machines)} {
		if err := r.r.StoreU64(off, v); err != nil {
			return sound, err
		}
	}
	return sound, r.r.WriteHeader(0, region.Header{Magic: Magic, Version: Version, Generation: r.rack})
}
