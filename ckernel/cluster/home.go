package cluster

import "dinos/sched"

// PickHome is the machine where the scheduler would place a new process that wants so much. Nothing is granted. The error is a
// *sched.Refusal, or what else the placement says.
func (c *Cluster) PickHome(cores, slices int64) (int, error) {
	c.resize()
	c.probes++
	pid := uint64(sched.MaxProcess - c.probes) // real processes have small ids
	if err := c.cfg.Placement.Start(pid); err != nil {
		return 0, err
	}
	d := c.cfg.Placement.Request([]sched.Request{{Process: pid, Cores: max(cores, 1), Slices: max(slices, 0)}})[0]
	home := 0
	if d.Err == nil {
		home = int(d.Grants[0].Dkernel)
	}
	if _, err := c.cfg.Placement.Exit(pid); err != nil {
		return 0, err
	}
	if d.Err != nil {
		return 0, d.Err
	}
	return home, nil
}
