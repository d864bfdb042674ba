package rack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"dinos/nr/oplog"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/proto"
	"dinos/shmem/region"
)

// Status is how a rack is. Its JSON form is what scripts read.
type Status struct {
	Rack        string         `json:"rack"`
	State       string         `json:"state"`
	Generation  uint64         `json:"generation"`
	Epoch       uint64         `json:"epoch"`
	Accelerator string         `json:"accelerator"`
	UptimeMs    int64          `json:"uptime_ms"`
	Launcher    int            `json:"launcher_pid"`
	Directory   string         `json:"directory"`
	Memory      string         `json:"memory"` // path
	Shared      uint64         `json:"shared_bytes"`
	Ckernel     string         `json:"ckernel"` // "answers", or why it does not
	Slices      uint64         `json:"slices"`
	FreeSlices  uint64         `json:"free_slices"`
	FreeCores   uint64         `json:"free_cores"`
	GrantTable  string         `json:"grant_table,omitempty"` // what is wrong with it; "" if nothing is
	Kernels     []KernelStatus `json:"kernels"`
	Check       *Check         `json:"check,omitempty"`
}

// KernelStatus is how a kernel of a rack is.
type KernelStatus struct {
	Name       string `json:"name"`
	Peer       int    `json:"peer"`
	Machine    string `json:"machine"` // running, paused or gone
	PID        int    `json:"pid,omitempty"`
	Ended      string `json:"ended,omitempty"`    // how the last machine did
	EndedMs    int64  `json:"ended_ms,omitempty"` // how long ago
	State      string `json:"state"`              // what the kernel says of itself; "gone" without a machine
	Member     string `json:"member,omitempty"`   // what the ckernel says of it; "" if it knows none or does not answer
	Generation uint64 `json:"generation"`         // of its life
	Cores      uint64 `json:"cores"`              // it has
	CoresHeld  uint64 `json:"cores_held"`         // by grants
	SlicesHeld uint64 `json:"slices_held"`        // by grants
	Processes  uint64 `json:"processes"`          //
	MemoryMiB  uint64 `json:"memory_mib"`         // of its own
	UptimeMs   int64  `json:"uptime_ms"`          // of this life
	BeatMs     int64  `json:"beat_age_ms"`        // since its heartbeat was seen to change; -1 if it never was
	Doorbell   int    `json:"doorbell_id"`        // ivshmem peer id; -1 for none
	Restarts   int    `json:"restarts,omitempty"` // of the ckernel, by the launcher
	CommandLn  string `json:"command_line"`       //
}

// Check is the outcome of the audits of who owns what.
type Check struct {
	Clean    bool     `json:"clean"`
	Ckernel  []string `json:"ckernel"` // what the ckernel finds wrong in its own view, or why it was not asked
	Host     []string `json:"host"`    // what this host finds wrong in the shared table
	Slices   uint64   `json:"slices"`
	Cores    uint64   `json:"cores"`
	Dkernels uint64   `json:"held_by_dkernels"`
	Procs    uint64   `json:"held_by_processes"`
}

// Status asks the ckernel and looks at the shared memory. With check, ownership is audited by both.
func (r *Rack) Status(ctx context.Context, check bool) *Status {
	s := &Status{Rack: r.cfg.Name, State: layout.RackState(r.shared.State.Load()).String(), Generation: r.shared.Generation,
		Epoch: r.shared.Epoch.Load(), Accelerator: r.accel.Why, UptimeMs: time.Since(r.started).Milliseconds(), Launcher: r.state.Launcher.PID,
		Directory: r.dir.Path, Memory: r.state.Memory, Shared: r.cfg.Shared, Slices: r.shared.Slices.Count, Ckernel: "answers"}
	var reply proto.StatusReply
	members := map[int]proto.Member{}
	timeout := callTimeout
	if check {
		timeout *= 5
	}
	err := r.ask(ctx, layout.Ckernel, &proto.Status{Check: check}, &reply, timeout)
	if err != nil {
		s.Ckernel = err.Error()
	} else {
		s.FreeCores, s.FreeSlices, s.Epoch = reply.FreeCores, reply.FreeSlices, reply.Epoch
		for _, m := range reply.Members {
			members[int(m.Peer)] = m
		}
	}
	table, terr := grant.Open(r.shared)
	if terr != nil {
		s.GrantTable = terr.Error()
	}
	for _, k := range r.all() {
		s.Kernels = append(s.Kernels, r.kernelStatus(k, table, members))
	}
	if check {
		s.Check = r.check(ctx, table, terr, &reply, err)
	}
	return s
}

// kernelStatus is how one kernel is, as its machine, its block and the grant table tell.
func (r *Rack) kernelStatus(k *kernel, table *grant.Reader, members map[int]proto.Member) KernelStatus {
	b := k.block
	r.mu.Lock()
	s := KernelStatus{Name: k.name, Peer: k.peer, Machine: "running", Ended: k.ended, Restarts: k.restarts, BeatMs: -1}
	switch {
	case k.m == nil:
		s.Machine, s.EndedMs = "gone", time.Since(k.endedAt).Milliseconds()
	case k.paused:
		s.Machine, s.PID = "paused", k.proc.PID
	default:
		s.PID = k.proc.PID
	}
	began, since := b.Generation.Load() > k.before, k.since
	if at := r.beats[k.peer].at; !at.IsZero() {
		s.BeatMs = time.Since(at).Milliseconds()
	}
	r.mu.Unlock()
	s.Generation, s.Cores, s.MemoryMiB, s.CommandLn = b.Generation.Load(), b.Cores.Load(), b.Memory.Load()>>20, r.commandLine(k)
	s.State = layout.State(b.State.Load()).String()
	if !began {
		s.State = "starting"
	}
	if s.Machine == "gone" {
		s.State = "gone"
	} else {
		s.UptimeMs, s.Processes = time.Since(since).Milliseconds(), b.Stat[layout.StatProcesses].Load()
	}
	s.Doorbell, _ = b.DoorbellID(1<<16 - 1)
	if b.Doorbell.Load() == 0 {
		s.Doorbell = -1
	}
	if m, ok := members[k.peer]; ok {
		s.Member = layout.State(m.State).String()
	} else if k.peer == layout.Ckernel && len(members) > 0 {
		s.Member = s.State
	}
	if table != nil && k.peer != layout.Ckernel {
		names, _ := table.Owned(grant.Owner{Peer: k.peer, Generation: s.Generation}) // what cannot be read is check's business
		for _, n := range names {
			if n.Unit.Core {
				s.CoresHeld++
			} else {
				s.SlicesHeld++
			}
		}
	}
	return s
}

// settle is how long the host's audit waits before it takes what it found for more than a change under way.
const settle = 150 * time.Millisecond

// check audits ownership: the ckernel its view, this host the table in shared memory.
func (r *Rack) check(ctx context.Context, table *grant.Reader, terr error, reply *proto.StatusReply, err error) *Check {
	c := &Check{Ckernel: append([]string{}, reply.Problems...), Host: []string{}}
	if err != nil {
		c.Ckernel = append(c.Ckernel, "not asked: "+err.Error())
	}
	if terr != nil {
		c.Host = append(c.Host, terr.Error())
		return c
	}
	var report *grant.Report
	for range 5 { // the ckernel works meanwhile: what stays is wrong
		report = table.Audit(r.lives)
		if len(report.Violations) == 0 {
			break
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
		}
	}
	for _, v := range report.Violations {
		c.Host = append(c.Host, v.Text)
	}
	c.Slices, c.Cores = report.Slices, report.Cores
	c.Dkernels, c.Procs = report.HeldByDkernel, report.HeldByProcesses
	c.Clean = len(c.Ckernel) == 0 && len(c.Host) == 0
	return c
}

// lives is the membership as the machine blocks tell it.
func (r *Rack) lives(p int) (generation uint64, member bool) {
	k := r.byPeer(p)
	if k == nil {
		return 0, false
	}
	gen := k.block.Generation.Load()
	return gen, gen != 0 && !k.block.Fenced(gen)
}

// Sample is the counters of a rack at a moment, for rates.
type Sample struct {
	Rack       string         `json:"rack"`
	TimeNs     int64          `json:"time_ns"`
	Slices     uint64         `json:"slices"`
	FreeSlices uint64         `json:"free_slices"`
	Kernels    []KernelSample `json:"kernels"`
	Logs       []LogSample    `json:"logs"`
}

// KernelSample is a kernel's part of a Sample.
type KernelSample struct {
	Name       string            `json:"name"`
	State      string            `json:"state"`
	Generation uint64            `json:"generation"`
	Cores      uint64            `json:"cores"`
	CoresHeld  uint64            `json:"cores_held"`
	SlicesHeld uint64            `json:"slices_held"`
	CPUNs      int64             `json:"host_cpu_ns"` // that its machine used
	Stats      map[string]uint64 `json:"stats"`       // by layout.Stat
}

// LogSample is where a log is.
type LogSample struct {
	Log       int             `json:"log"`
	Head      uint64          `json:"head"`
	Completed uint64          `json:"completed"`
	Tail      uint64          `json:"tail"`
	Replicas  []ReplicaSample `json:"replicas"`
}

// ReplicaSample is where a replica is in a log.
type ReplicaSample struct {
	Slot  int    `json:"slot"`
	State string `json:"state"`
	At    uint64 `json:"at"`
}

// Sample takes a sample. It asks nobody: all is in shared memory.
func (r *Rack) Sample() *Sample {
	s := &Sample{Rack: r.cfg.Name, TimeNs: int64(time.Since(r.started)), Slices: r.shared.Slices.Count}
	table, err := grant.Open(r.shared)
	if err == nil {
		s.FreeSlices = table.Audit(nil).FreeSlices
	}
	for _, k := range r.all() {
		st := r.kernelStatus(k, table, nil)
		ks := KernelSample{Name: k.name, State: st.State, Generation: st.Generation, Cores: st.Cores, CoresHeld: st.CoresHeld,
			SlicesHeld: st.SlicesHeld, Stats: map[string]uint64{}}
		for i, w := range k.block.Stat {
			ks.Stats[layout.Stat(i).String()] = w.Load()
		}
		r.mu.Lock()
		proc := k.proc
		r.mu.Unlock()
		if d, err := proc.CPUTime(); err == nil {
			ks.CPUNs = int64(d)
		}
		s.Kernels = append(s.Kernels, ks)
	}
	for i := range r.shared.Config.Logs {
		if l, ok := sampleLog(r.shared, i); ok {
			s.Logs = append(s.Logs, l)
		}
	}
	return s
}

func sampleLog(k *layout.Rack, i int) (LogSample, bool) {
	part, err := k.LogRegion(k.Region, i)
	if err != nil {
		return LogSample{}, false
	}
	l, err := oplog.Open(part)
	if err != nil {
		return LogSample{}, false // none there, or being made
	}
	s := LogSample{Log: i, Head: l.Head(), Completed: l.Completed(), Tail: l.Tail()}
	for _, slot := range l.Slots() {
		if slot.State != oplog.Free {
			s.Replicas = append(s.Replicas, ReplicaSample{slot.Slot, slot.State.String(), slot.Tail})
		}
	}
	return s, true
}

// DumpLog prints a log for layout.Dump.
func DumpLog(entries int) layout.Dumper {
	return func(w io.Writer, part region.Region) error {
		l, err := oplog.Open(part)
		if err != nil {
			_, err = fmt.Fprintf(w, "no log: %v\n", err)
			return err
		}
		return l.Dump(w, entries)
	}
}

// SchedShow asks the ckernel's scheduler for a text; see proto.SchedShow.
func (r *Rack) SchedShow(ctx context.Context, what string) (string, error) {
	var text []byte
	for {
		var a proto.SchedShowReply
		if err := r.ask(ctx, layout.Ckernel, &proto.SchedShow{What: what, Offset: uint32(len(text))}, &a, 5*callTimeout); err != nil {
			return "", err
		}
		text = append(text, a.Text...)
		// It may have become shorter between two parts.
		if len(a.Text) == 0 || len(text) >= int(a.Total) || len(text) > maxSched {
			return string(text), nil
		}
	}
}

// maxSched bounds a text of the scheduler.
const maxSched = 4 << 20

// SchedSet puts a policy in force; without a text, the shipped one of that name.
func (r *Rack) SchedSet(ctx context.Context, name, text string) (string, error) {
	var a proto.SchedSetReply
	err := r.ask(ctx, layout.Ckernel, &proto.SchedSet{Name: name, Text: []byte(text)}, &a, 5*callTimeout)
	return string(a.Text), tooLong(err, text)
}

// SchedExplain asks where requests would go.
func (r *Rack) SchedExplain(ctx context.Context, requests string) (string, error) {
	var a proto.SchedExplainReply
	err := r.ask(ctx, layout.Ckernel, &proto.SchedExplain{Requests: []byte(requests)}, &a, 5*callTimeout)
	return string(a.Text), tooLong(err, requests)
}

// tooLong says what is right if err is that text does not fit into a message.
func tooLong(err error, text string) error {
	if errors.Is(err, proto.ErrEncode) {
		return fmt.Errorf("%d bytes of text, want at most %d: %w", len(text), proto.MaxData, err)
	}
	return err
}
