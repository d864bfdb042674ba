package machine

import (
	"errors"
	"sync"

	"dinos/kernel/mem"
	"dinos/kernel/paging"
	"dinos/kernel/trap"
	"dinos/kernel/ureg"
	"dinos/kernel/x86"
)

// Ring 3: threads and page tables of programs.

// ErrNoUser: the CPU lacks what ring 3 needs.
var ErrNoUser = errors.New("machine: the CPU lacks SMAP or SMEP, so no program can be run (Broadwell or later; QEMU: -cpu max)")

// UserThread is what the CPU knows of a thread in ring 3. The goroutine that runs the thread calls its methods; Kick anybody.
// It implements ureg.CPU.
type UserThread struct {
	u     trap.User
	image []byte // the extended state while no CPU has it
}

var _ ureg.CPU = (*UserThread)(nil)

// CanRunUser reports whether programs can be run, and if not, why.
func CanRunUser() error {
	// SMAP is not only a defence: ring 0 finds its devices below 4 GiB, where programs may have memory, by the fault that it gets there.
	if f := &found.features; !f.smap || !f.smep {
		return ErrNoUser
	}
	return nil
}

// NewUserThread makes a thread whose registers are in f, and whose extended state is what programs start with. Close it.
func NewUserThread(f *ureg.Frame) *UserThread {
	t := &UserThread{}
	t.u.Regs = f
	raw := make([]byte, t.Size()+64)
	off := -addr(&raw[0]) & 63
	t.image = raw[off : off+uint64(t.Size())]
	t.u.Image = addr(&t.image[0])
	t.Reset(f)
	return t
}

// Frame has the registers.
func (t *UserThread) Frame() *ureg.Frame { return t.u.Regs }

// Enter runs the thread in ring 3 on the page tables at root until it leaves; Frame().Trap says why. It is ureg.Interrupt
// if the kernel wants the CPU for something else, or after a Kick.
func (t *UserThread) Enter(root uint64) {
	t.u.Root = root
	kernel.EnterUser(&t.u)
}

// Kick makes the thread leave ring 3, or return from the next Enter at once, until ClearKick. Any goroutine may call it.
func (t *UserThread) Kick() { kernel.KickUser(&t.u) }

// ClearKick is called by the thread before it looks for what it was kicked for.
func (t *UserThread) ClearKick() { t.u.Kicked.Store(0) }

// SetFast has system call nr, below FastCalls, answered with v without leaving the entry code, until ClearFast. The thread's goroutine calls it.
func (t *UserThread) SetFast(nr int, v uint64) { t.u.SetFast(nr, v) }

// ClearFast undoes all SetFast.
func (t *UserThread) ClearFast() { t.u.ClearFast() }

// Close gives the CPU's part of the thread back. The thread does not run any more.
func (t *UserThread) Close() { kernel.SyncUser(&t.u) }

// userFrames gives user page tables their frames, in batches, since each trip to the allocator is a system call.
type userFrames struct {
	mu    sync.Mutex
	free  [256]uint64
	n     int
	inUse int
}

var theUserFrames userFrames

// AllocTable implements paging.Frames.
func (f *userFrames) AllocTable() (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == 0 {
		err := lockedVM(func(*trap.CPU) error {
			f.n = kernel.Frames.AllocBatch(f.free[:len(f.free)/2])
			if f.n == 0 {
				return mem.ErrNoMemory
			}
			return nil
		})
		if err != nil {
			return 0, false
		}
	}
	f.n--
	f.inUse++
	return f.free[f.n], true
}

// FreeTable implements paging.Frames.
func (f *userFrames) FreeTable(phys uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == len(f.free) {
		given(lockedVM(func(*trap.CPU) error {
			for ; f.n > len(f.free)/2; f.n-- {
				if err := kernel.Frames.Free4K(f.free[f.n-1]); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	f.free[f.n] = phys
	f.n++
	f.inUse--
}

// UserTablesInUse is how many frames page tables of programs have.
func UserTablesInUse() int {
	theUserFrames.mu.Lock()
	defer theUserFrames.mu.Unlock()
	return theUserFrames.inUse
}

// InitUser makes s an empty address space for programs.
func InitUser(s *paging.Space) error { return s.InitUserIn(&kernel.Tables, &theUserFrames) }

// FlushUser returns when no CPU uses old translations of the pages from start on, of the tables at root.
func FlushUser(root, start, pages uint64) { kernel.FlushUser(root, start, pages) }

// UserBarrier returns when every CPU that was in ring 3 has passed through the kernel.
func UserBarrier() { kernel.FlushUser(0, 0, 0) }

// dropRoot lets one DropRoot run at a time.
var dropRoot sync.Mutex

// RetireUser makes all CPUs stop using the tables at root, so that they can be destroyed. No thread will Enter with them any more.
func RetireUser(root uint64) {
	dropRoot.Lock()
	kernel.DropRoot(root)
	dropRoot.Unlock()
}

// UserFrame gives a frame of RAM, cleared, for tests of ring 3.
func UserFrame() (phys uint64, b []byte, err error) {
	err = lockedVM(func(*trap.CPU) error {
		pa, err := kernel.Frames.Alloc4K()
		phys = pa
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	b = physBytes(phys, mem.FrameSize)
	clear(b)
	return phys, b, nil
}

// FreeUserFrame gives it back.
func FreeUserFrame(phys uint64) {
	given(lockedVM(func(*trap.CPU) error { return kernel.Frames.Free4K(phys) }))
}

// userImageSize is the size of an extended state image.
func userImageSize() int {
	if found.features.xcr0 == 0 {
		return 576
	}
	_, b, _, _ := x86.CPUID(13, 0) // for what XCR0 has now
	return (int(b) + 63) &^ 63
}

// CPUHint is the CPU that the caller runs on, without a system call; by the time it looks it may be on another one.
func CPUHint() uint32 { return uint32(trap.Self().ID) }
