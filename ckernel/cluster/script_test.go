package cluster

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dinos/sched"
	"dinos/shmem/grant"
	"dinos/shmem/layout"
	"dinos/shmem/logdir"
	"dinos/shmem/proto"
	"dinos/shmem/region"
)

var rewrite = flag.Bool("rewrite", false, "rewrite what the scripts print")

// TestScripts runs the scripts in testdata: lines that begin with "> " are commands, what follows is what they print.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			require.NoError(t, err)
			s := &script{t: t}
			got := s.run(string(text))
			if *rewrite {
				require.NoError(t, os.WriteFile(f, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(text), got)
		})
	}
}

// logDir adds to the directory what the shell knows.
type logDir struct {
	logdir.Dir
	inUse map[int]bool
}

func (l logDir) InUse(i int) bool { return l.inUse[i] }

// script is a rack that a script talks to.
type script struct {
	t      *testing.T
	k      *layout.Rack
	c      *Cluster
	table  *grant.Table
	logs   logDir
	first  bool // placement by FirstFit
	gen    uint64
	epoch  uint64
	now    int64
	token  uint64
	beats  map[int]uint64
	blocks map[int]*Block
	zeroes []grant.Name
	grants map[string]uint64 // last known grant of a unit, by its text
	fences map[int]uint64
}

func (s *script) run(text string) string {
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		switch {
		case strings.HasPrefix(l, "> "):
			fmt.Fprintln(&out, l)
			printed, err := s.command(strings.Fields(l[2:]))
			require.NoError(s.t, err, "line %d: %s", i+1, l)
			out.WriteString(printed)
		case l == "" || strings.HasPrefix(l, "#"):
			fmt.Fprintln(&out, l)
		}
	}
	return out.String()
}

// args takes words apart: n are numbers, the rest are flags.
func args(words []string) (n []int64, flags []string) {
	for _, w := range words {
		if v, err := strconv.ParseInt(w, 10, 64); err == nil {
			n = append(n, v)
		} else {
			flags = append(flags, w)
		}
	}
	return n, flags
}

func has(flags []string, f string) bool {
	for _, w := range flags {
		if w == f {
			return true
		}
	}
	return false
}

func (s *script) command(words []string) (string, error) {
	n, flags := args(words[1:])
	arg := func(i int) int64 {
		if i < len(n) {
			return n[i]
		}
		return 0
	}
	switch words[0] {
	case "rack": // machines slices [firstfit] [dirty]
		return s.rack(int(arg(0)), int(arg(1)), flags)
	case "restart": // the ckernel
		return s.restart()
	case "block": // peer generation state fence cores: what the machine block says at the next restart
		s.blocks[int(arg(0))] = &Block{Peer: int(arg(0)), Generation: uint64(arg(1)), State: layout.State(arg(2)), Fence: uint64(arg(3)), Cores: uint64(arg(4))}
		return "", nil
	case "tick": // ms peers that beat
		return s.tick(arg(0), n[1:])
	case "register": // peer generation cores
		q := &proto.Register{Generation: uint64(arg(1)), Rack: 1, Doorbell: uint16(arg(0) + 10), Cores: uint16(arg(2)), Name: fmt.Sprintf("m%d", arg(0))}
		if has(flags, "otherrack") {
			q.Rack = 2
		}
		return s.ask(int(arg(0)), uint32(arg(1)), q), nil
	case "cores", "slices": // peer generation process machine min max [spread]
		w := proto.Want{Process: uint64(arg(2)), Machine: int32(arg(3)), Spread: has(flags, "spread")}
		if words[0] == "cores" {
			return s.ask(int(arg(0)), uint32(arg(1)), &proto.RequestCores{Want: w, Min: uint16(arg(4)), Max: uint16(arg(5))}), nil
		}
		return s.ask(int(arg(0)), uint32(arg(1)), &proto.RequestSlices{Want: w, Min: uint32(arg(4)), Max: uint32(arg(5))}), nil
	case "release", "claim": // peer generation units, as core1.0 or slice3, with ! for a wrong grant
		return s.units(words[0], int(arg(0)), uint32(arg(1)), flags)
	case "zeroed": // n of those that wait, 0 for all
		return s.zeroed(int(arg(0)))
	case "over": // peer generation
		return s.step(Over{int(arg(0)), uint64(arg(1)), "killed"}), nil
	case "unknown": // peer process
		return s.step(Unknown{int(arg(0)), uint64(arg(1))}), nil
	case "cancel":
		return s.step(Cancel{s.token}), nil
	case "table":
		return s.show(), nil
	case "audit":
		_, problems := s.c.Audit()
		return strings.Join(append([]string{fmt.Sprintf("%d problems", len(problems))}, problems...), "\n") + "\n", nil
	case "damage": // slice n: breaks the entry
		return "", s.damage(uint64(arg(0)))
	case "inuse":
		s.logs.inUse[int(arg(0))] = !has(flags, "no")
		return "", nil
	case "ready": // log: its maker has formatted it
		l, err := s.logs.Read(int(arg(0)))
		if err != nil {
			return "", err
		}
		return "", s.logs.SetReady(int(arg(0)), l.Generation)
	}
	m, ok := s.message(words[0], arg, flags)
	if !ok {
		return "", fmt.Errorf("unknown command %q", words[0])
	}
	return s.ask(int(arg(0)), uint32(arg(1)), m), nil
}

// message is the request of a simple command, whose first two numbers are sender and generation.
func (s *script) message(cmd string, arg func(int) int64, flags []string) (proto.Request, bool) {
	switch cmd {
	case "leave":
		return &proto.Leave{Reason: "shutdown"}, true
	case "shutdown":
		return &proto.Shutdown{Reason: "test"}, true
	case "fence":
		return &proto.Fence{Peer: uint16(arg(2)), Generation: uint64(arg(3)), Reason: "killed"}, true
	case "drain":
		return &proto.Drain{Machine: uint16(arg(2)), Undo: has(flags, "undo")}, true
	case "exit":
		return &proto.ExitProcess{PID: uint64(arg(2))}, true
	case "heartbeat":
		return &proto.Heartbeat{Sequence: 5}, true
	case "status":
		return &proto.Status{Check: true}, true
	case "topology":
		return &proto.Topology{}, true
	case "log":
		return &proto.AssignLog{Process: uint64(arg(2)), Part: uint32(arg(3))}, true
	case "droplog":
		return &proto.ReleaseLog{Process: uint64(arg(2)), Part: uint32(arg(3))}, true
	case "show":
		return &proto.SchedShow{What: strings.Join(flags, " "), Offset: uint32(arg(2))}, true
	case "set":
		return &proto.SchedSet{Name: flags[0], Text: []byte(strings.Join(flags[1:], " "))}, true
	case "explain":
		return &proto.SchedExplain{Requests: []byte("request 1 process " + strconv.Itoa(int(arg(2))) + " cores " + strconv.Itoa(int(arg(3))) + " slices 0\n")}, true
	case "open":
		return &proto.Open{}, true
	}
	return nil, false
}

func (s *script) rack(machines, slices int, flags []string) (string, error) {
	c := layout.Config{Machines: machines, RingBytes: 4096, HostRingBytes: 4096, InboxSlots: 16, Logs: 2, LogBytes: 4096}
	size, err := layout.MinSize(c, uint64(slices))
	if err != nil {
		return "", err
	}
	r, err := region.New(region.Slab(int(size)))
	if err != nil {
		return "", err
	}
	if s.k, err = layout.Format(r, c, 1); err != nil {
		return "", err
	}
	if s.table, err = grant.Format(s.k, !has(flags, "dirty")); err != nil {
		return "", err
	}
	s.first, s.gen, s.beats, s.blocks, s.grants = has(flags, "firstfit"), 1, map[int]uint64{}, map[int]*Block{}, map[string]uint64{}
	s.fences = map[int]uint64{}
	s.logs = logDir{logdir.Of(s.k), map[int]bool{}}
	return s.start(nil)
}

func (s *script) start(found []grant.Violation) (string, error) {
	var p Placement = NewFirstFit()
	if !s.first {
		var err error
		if p, err = sched.New(sched.Options{Seed: 1}); err != nil {
			return "", err
		}
	}
	var err error
	s.c, err = New(Config{Rack: 1, Machines: s.k.Config.Machines, Generation: s.gen, Epoch: s.epoch, Table: s.table, Placement: p, Logs: s.logs,
		Timing: Timing{Beat: 100 * time.Millisecond},
		Self:   proto.Member{Cores: 1, Name: "c"}})
	if err != nil {
		return "", err
	}
	e := Start{Now: s.now, Found: found}
	for i := range s.k.Config.Machines {
		if b := s.blocks[i]; b != nil {
			e.Blocks = append(e.Blocks, *b)
		}
	}
	s.zeroes = nil
	return s.step(e), nil
}

func (s *script) restart() (string, error) {
	var found []grant.Violation
	var err error
	if s.table, found, err = grant.Recover(s.k); err != nil {
		return "", err
	}
	s.gen++
	return s.start(found)
}

func (s *script) tick(ms int64, peers []int64) (string, error) {
	s.now += ms * 1e6
	for _, p := range peers {
		s.beats[int(p)]++
	}
	e := Tick{Now: s.now}
	for i := 1; i < s.k.Config.Machines; i++ {
		e.Beats = append(e.Beats, Beat{i, s.beats[i]})
	}
	return s.step(e), nil
}

func (s *script) ask(from int, gen uint32, m proto.Request) string {
	s.token++
	return s.step(Request{Token: s.token, From: from, Generation: gen, Message: m})
}

func (s *script) step(e Event) string {
	var b strings.Builder
	for _, a := range s.c.Step(e) {
		switch a := a.(type) {
		case Zero:
			s.zeroes = append(s.zeroes, a.Name)
		case StoreEpoch:
			s.epoch = a.Epoch
		}
		fmt.Fprintf(&b, "  %s\n", brief(a))
	}
	for u, en := range s.table.All() {
		if en.State == grant.Held {
			s.grants[u.String()] = en.Grant
		}
	}
	return b.String()
}

// brief is an action without what is the same each time.
func brief(a Action) string {
	switch a := a.(type) {
	case Notify:
		if m, ok := a.Message.(*proto.Membership); ok {
			return fmt.Sprintf("notify %d: epoch %d, %s (%s)", a.To, m.Epoch, briefMembers([]proto.Member{m.Member}), m.Reason)
		}
	case Reply:
		head := fmt.Sprintf("reply %d: ", a.Token)
		switch m := a.Message.(type) {
		case *proto.RegisterReply:
			return head + fmt.Sprintf("registered as %d, epoch %d,%s", m.Peer, m.Epoch, briefMembers(m.Members))
		case *proto.TopologyReply:
			return head + fmt.Sprintf("epoch %d,%s, threads %v", m.Epoch, briefMembers(m.Members), m.Threads)
		case *proto.StatusReply:
			return head + fmt.Sprintf("at %d epoch %d,%s, %d cores and %d slices free, %v", m.TimeNs, m.Epoch, briefMembers(m.Members), m.FreeCores, m.FreeSlices, m.Problems)
		case *proto.RequestCoresReply:
			return head + briefUnits(m.Cores, nil)
		case *proto.RequestSlicesReply:
			return head + briefUnits(nil, m.Slices)
		case *proto.ClaimReply:
			return head + briefUnits(m.Cores, m.Slices)
		case *proto.SchedShowReply:
			return head + fmt.Sprintf("%s, %d bytes:\n%s", m.Name, m.Total, indent(m.Text))
		case *proto.SchedSetReply:
			return head + "\n" + indent(m.Text)
		case *proto.SchedExplainReply:
			return head + "\n" + indent(m.Text)
		}
	}
	return a.String()
}

func indent(text []byte) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n    ")
}

func briefMembers(list []proto.Member) (text string) {
	for _, m := range list {
		text += fmt.Sprintf(" %d@%d %v %q %d cores %d slices", m.Peer, m.Generation, layout.State(m.State), m.Name, m.Cores, m.Slices)
	}
	return text
}

func briefUnits(cores []proto.Core, list []proto.Slice) string {
	var b strings.Builder
	for _, k := range cores {
		fmt.Fprintf(&b, "core%d.%d grant %#x, ", k.Machine, k.Core, k.Grant)
	}
	for _, l := range list {
		fmt.Fprintf(&b, "slice%d grant %#x, ", l.Slice, l.Grant)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// units sends a Release or Claim; the texts are "core1.0", "slice3".
func (s *script) units(cmd string, from int, gen uint32, flags []string) (string, error) {
	var cores []proto.Core
	var list []proto.Slice
	for _, f := range flags {
		if f == "last" {
			continue
		}
		text, bad := strings.CutSuffix(f, "!")
		var m, i int
		var u grant.Unit
		if _, err := fmt.Sscanf(text, "core%d.%d", &m, &i); err == nil {
			u = grant.Core(m, i)
		} else if _, err := fmt.Sscanf(text, "slice%d", &i); err == nil {
			u = grant.Slice(uint64(i))
		} else {
			return "", errors.New("unit " + f)
		}
		g := s.grants[u.String()]
		if bad {
			g++
		}
		if u.Core {
			cores = append(cores, proto.Core{Machine: uint16(m), Core: uint16(i), Grant: g})
		} else {
			list = append(list, proto.Slice{Slice: u.Index, Grant: g})
		}
	}
	switch {
	case cmd == "claim":
		return s.ask(from, gen, &proto.Claim{Cores: cores, Slices: list, First: true, Last: has(flags, "last")}), nil
	case cores != nil:
		return s.ask(from, gen, &proto.ReleaseCores{Cores: cores}), nil
	}
	return s.ask(from, gen, &proto.ReleaseSlices{Slices: list}), nil
}

func (s *script) zeroed(n int) (string, error) {
	out := ""
	for i := 0; len(s.zeroes) > 0 && (n == 0 || i < n); i++ {
		z := s.zeroes[0]
		s.zeroes = s.zeroes[1:]
		out += s.step(Zeroed{z})
	}
	return out, nil
}

func (s *script) damage(slice uint64) error {
	g, err := s.k.GrantRegion(s.k.Region)
	if err != nil {
		return err
	}
	return g.StoreU64(region.Off(layout.GrantHeaderBytes+slice*layout.GrantEntryBytes), 0x1234567)
}

// show prints the table, one line for units in a row that are the same.
func (s *script) show() string {
	var b strings.Builder
	for u, e := range s.table.All() {
		if e.State == grant.Absent {
			continue
		}
		line := fmt.Sprintf("%v %v", u, e.State)
		if e.Owner != (grant.Owner{}) {
			line += fmt.Sprintf(" %v", e.Owner)
		}
		fmt.Fprintln(&b, " ", line)
	}
	return b.String()
}
