package nrtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dinos/nr"
	"dinos/shmem/region"

	"github.com/stretchr/testify/require"
)

// The kill test: two processes share a file in /dev/shm, each with a replica and writers. The parent, which is the
// membership authority, kills one of them again and again, evicts it, checks on the survivor that nothing acknowledged is
// lost, and starts another one from the survivor's snapshot.

// seqOp is op number Seq of a writer.
type seqOp struct{ Writer, Seq uint32 }

// seqs counts per writer and refuses gaps and repetitions.
type seqs struct {
	last map[uint32]uint32
	bad  uint32 // ops that were not the next of their writer
}

func (s *seqs) Read(op seqOp) [2]uint32 { return [2]uint32{s.last[op.Writer], s.bad} }

func (s *seqs) Apply(op seqOp) [2]uint32 {
	if op.Seq != s.last[op.Writer]+1 {
		s.bad++
	}
	s.last[op.Writer] = op.Seq
	return s.Read(op)
}

func (s *seqs) Snapshot(w io.Writer) error {
	out := []uint32{s.bad}
	for k, v := range s.last {
		out = append(out, k, v)
	}
	return binary.Write(w, binary.LittleEndian, out)
}

func (s *seqs) Restore(r io.Reader) error {
	if err := binary.Read(r, binary.LittleEndian, &s.bad); err != nil {
		return err
	}
	for {
		var kv [2]uint32
		switch err := binary.Read(r, binary.LittleEndian, &kv); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		s.last[kv[0]] = kv[1]
	}
}

const (
	killWriters = 2       // per process
	killAcks    = 1 << 16 // bytes for acknowledgements, 8 a writer
	killEnv     = "NR_KILL_CHILD"
)

func killConfig() nr.Config[seqOp, [2]uint32] {
	return nr.Config[seqOp, [2]uint32]{New: func(int) nr.Structure[seqOp, [2]uint32] { return &seqs{last: map[uint32]uint32{}} },
		Entries: 256, Replicas: 8, Threads: killWriters + 1}
}

// killMap maps the shared file: the instance, and the area of acknowledgements behind it.
func killMap(path string) (mem, acks []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	size, err := killConfig().Size()
	if err != nil {
		return nil, nil, err
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(size)+killAcks, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return b[:size], b[size:], nil
}

func TestMain(m *testing.M) {
	if arg := os.Getenv(killEnv); arg != "" {
		if err := killChild(arg, os.Stdin, os.Stdout); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// killChild is a child process: "path first-writer snapshot", without a snapshot the first replica.
func killChild(arg string, in io.Reader, out io.Writer) error {
	var path, snapshot string
	var writer uint32
	if _, err := fmt.Sscan(arg, &path, &writer, &snapshot); err != nil {
		return err
	}
	mem, acks, err := killMap(path)
	if err != nil {
		return err
	}
	inst, err := nr.Open(mem, killConfig())
	if err != nil {
		return err
	}
	var rep *nr.Replica[seqOp, [2]uint32]
	if snapshot == "-" {
		rep, err = inst.First()
	} else {
		var b []byte
		if b, err = os.ReadFile(snapshot); err == nil {
			rep, err = inst.Join(bytes.NewReader(b))
		}
	}
	if err != nil {
		return err
	}
	ack, err := region.New(acks)
	if err != nil {
		return err
	}
	failed := make(chan error, killWriters)
	for i := range uint32(killWriters) {
		h, err := rep.Register()
		if err != nil {
			return err
		}
		go func() { failed <- killWrite(h, ack, writer+i) }()
	}
	h, err := rep.Register()
	if err != nil {
		return err
	}
	id := rep.ID()
	fmt.Fprintln(out, "up", id.Slot, id.Gen)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		select {
		case err := <-failed:
			return err
		default:
		}
		f := strings.Fields(lines.Text())
		switch {
		case len(f) == 2 && f[0] == "count":
			n, _ := strconv.Atoi(f[1])
			got, err := h.Read(seqOp{Writer: uint32(n)})
			if err != nil {
				return err
			}
			fmt.Fprintln(out, "count", got[0], got[1])
		case len(f) == 2 && f[0] == "donate":
			var b bytes.Buffer
			id, err := rep.Donate(&b, nil)
			if err != nil {
				return err
			}
			if err := os.WriteFile(f[1], b.Bytes(), 0o600); err != nil {
				return err
			}
			fmt.Fprintln(out, "donated", id.Slot, id.Gen)
		default:
			return fmt.Errorf("unknown command %q", lines.Text())
		}
	}
	return lines.Err()
}

func killWrite(h *nr.Handle[seqOp, [2]uint32], ack region.Region, writer uint32) error {
	for seq := uint32(1); ; seq++ {
		if _, err := h.Apply(seqOp{writer, seq}); err != nil {
			return err
		}
		if err := ack.StoreU64(region.Off(writer)*8, uint64(seq)); err != nil {
			return err
		}
	}
}

// killProc is a child as the parent sees it.
type killProc struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	id     nr.ID
	writer uint32
}

func (p *killProc) ask(format string, args ...any) (string, error) {
	if format != "" {
		if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
			return "", err
		}
	}
	if !p.out.Scan() {
		return "", fmt.Errorf("writer %d ended: %w", p.writer, errors.Join(p.out.Err(), io.ErrUnexpectedEOF))
	}
	return p.out.Text(), nil
}

type killRack struct {
	t    *testing.T
	dir  string
	path string
	inst *nr.Instance[seqOp, [2]uint32]
	acks region.Region
	next uint32
}

func (k *killRack) start(snapshot string) *killProc {
	exe, err := os.Executable()
	require.NoError(k.t, err)
	p := &killProc{cmd: exec.Command(exe), writer: k.next}
	k.next += killWriters
	require.Less(k.t, int(k.next)*8, killAcks)
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", killEnv, k.path, p.writer, snapshot))
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(k.t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(k.t, err)
	p.out = bufio.NewScanner(out)
	require.NoError(k.t, p.cmd.Start())
	return p
}

func (k *killRack) waitUp(p *killProc) {
	line, err := p.ask("")
	require.NoError(k.t, err)
	_, err = fmt.Sscanf(line, "up %d %d", &p.id.Slot, &p.id.Gen)
	require.NoError(k.t, err, line)
}

// kill ends p the hard way and evicts it.
func (k *killRack) kill(p *killProc) {
	require.NoError(k.t, p.cmd.Process.Kill()) // SIGKILL
	_ = p.cmd.Wait()                           // says that it was killed
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := k.inst.Evict(p.id, true)
		if err == nil {
			return
		}
		require.ErrorIs(k.t, err, nr.ErrFull)
		require.True(k.t, time.Now().Before(deadline), "the survivor does not consume: %v", err)
		time.Sleep(time.Millisecond)
	}
}

// check asks p about all ops of a process that is dead, or of p itself.
func (k *killRack) check(p *killProc, writer uint32, dead bool) uint64 {
	total := uint64(0)
	for w := writer; w < writer+killWriters; w++ {
		acked, err := k.acks.LoadU64(region.Off(w) * 8)
		require.NoError(k.t, err)
		line, err := p.ask("count %d", w)
		require.NoError(k.t, err)
		var count, bad uint64
		_, err = fmt.Sscanf(line, "count %d %d", &count, &bad)
		require.NoError(k.t, err, line)
		require.Zero(k.t, bad, "ops were lost or repeated")
		require.GreaterOrEqual(k.t, count, acked, "writer %d: %d ops acknowledged, %d there", w, acked, count)
		if dead {
			require.LessOrEqual(k.t, count, acked+1, "writer %d: more than the one op under way came through", w)
		}
		total += acked
	}
	return total
}

func TestKillProcesses(t *testing.T) {
	n := 25
	if long() {
		n = 1000
	}
	seed := uint64(time.Now().UnixNano()) // the moments differ in any case; the seed only repeats the choices
	t.Logf("seed %d, %d kills", seed, n)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = os.TempDir()
	}
	dir, err := os.MkdirTemp(dir, "nr-kill")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	k := &killRack{t: t, dir: dir, path: filepath.Join(dir, "log")}
	size, err := killConfig().Size()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(k.path, nil, 0o600))
	require.NoError(t, os.Truncate(k.path, int64(size)+killAcks))
	mem, acks, err := killMap(k.path)
	require.NoError(t, err)
	require.NoError(t, nr.Format(mem, killConfig()))
	k.inst, err = nr.Open(mem, killConfig())
	require.NoError(t, err)
	k.acks, err = region.New(acks)
	require.NoError(t, err)

	pair := [2]*killProc{k.start("-"), nil}
	t.Cleanup(func() {
		for _, p := range pair {
			if p != nil {
				_ = p.cmd.Process.Kill()
				_ = p.cmd.Wait()
			}
		}
	})
	k.waitUp(pair[0])
	join := func(i int) {
		snapshot := filepath.Join(dir, "snapshot")
		line, err := pair[1-i].ask("donate %s", snapshot)
		require.NoError(t, err)
		var id nr.ID
		_, err = fmt.Sscanf(line, "donated %d %d", &id.Slot, &id.Gen)
		require.NoError(t, err, line)
		pair[i] = k.start(snapshot)
		pair[i].id = id
	}
	join(1)
	k.waitUp(pair[1])
	acked, early := uint64(0), 0
	for range n {
		victim := r.IntN(2)
		time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
		k.kill(pair[victim])
		dead, other := pair[victim], pair[1-victim]
		acked += k.check(other, dead.writer, true)
		k.check(other, other.writer, false)
		join(victim)
		for r.IntN(4) == 0 {
			// Half way into its life, perhaps into joining.
			time.Sleep(time.Duration(r.IntN(8000)) * time.Microsecond)
			k.kill(pair[victim])
			k.check(other, pair[victim].writer, true)
			early++
			join(victim)
		}
		k.waitUp(pair[victim])
	}
	require.Positive(t, acked)
	require.Len(t, k.inst.Members(), 2)
	t.Logf("%d kills and %d while joining, %d acknowledged ops of the dead, none lost", n, early, acked)
}
