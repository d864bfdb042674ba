package proto

// What several messages have in common.

// Member is a machine of the rack.
type Member struct {
	Peer       uint16
	Kind       uint8 // 'c', 'd' or 'h'
	State      uint8 // a layout.State
	Generation uint64
	Doorbell   uint16 // its ivshmem peer id
	Cores      uint16
	Memory     uint64 // bytes of its own
	Slices     uint64 // of 2 MiB, that it and processes on it hold
	Uptime     uint64 // ns
	Name       string
}

func (c *codec) member(m *Member) *codec {
	c.u16(&m.Peer).u8(&m.Kind).u8(&m.State).u64(&m.Generation).u16(&m.Doorbell).u16(&m.Cores).u64(&m.Memory)
	c.u64(&m.Slices).u64(&m.Uptime).str(&m.Name, MaxName)
	return c
}

// Core is a core, and by which grant somebody holds it.
type Core struct {
	Machine, Core uint16
	Generation    uint64 // of the machine
	Grant         uint64 // 0 if it is free; names this grant of it
}

func (c *codec) core(m *Core) *codec {
	return c.u16(&m.Machine).u16(&m.Core).u64(&m.Generation).u64(&m.Grant)
}

// Thread is a hardware thread.
type Thread struct {
	Machine, Core, APIC, Node uint16
}

func (c *codec) thread(m *Thread) *codec {
	return c.u16(&m.Machine).u16(&m.Core).u16(&m.APIC).u16(&m.Node)
}

// Slice is a 2 MiB slice, and by which grant somebody holds it.
type Slice struct {
	Slice uint64
	Grant uint64 // names this grant of it
}

func (c *codec) slice(m *Slice) *codec {
	return c.u64(&m.Slice).u64(&m.Grant)
}

// Attr are the attributes of a file.
type Attr struct {
	Inode, Size, Blocks, Device            uint64
	Mode, Links, UID, GID, BlockSize, Type uint32
	Accessed, Modified, Changed            int64 // ns since 1970
}

func (c *codec) attr(m *Attr) *codec {
	c.u64(&m.Inode).u64(&m.Size).u64(&m.Blocks).u64(&m.Device).u32(&m.Mode).u32(&m.Links).u32(&m.UID)
	c.u32(&m.GID).u32(&m.BlockSize).u32(&m.Type).i64(&m.Accessed).i64(&m.Modified).i64(&m.Changed)
	return c
}

// Dirent is an entry of a directory.
type Dirent struct {
	Inode, Next uint64 // Next is the offset behind this entry
	Type        uint8
	Name        string
}

func (c *codec) dirent(m *Dirent) *codec {
	return c.u64(&m.Inode).u64(&m.Next).u8(&m.Type).str(&m.Name, MaxName)
}

// Usage is what a process used.
type Usage struct {
	UserNs, SystemNs, MaxMemory, Faults, Syscalls uint64
}

func (c *codec) usage(m *Usage) *codec {
	return c.u64(&m.UserNs).u64(&m.SystemNs).u64(&m.MaxMemory).u64(&m.Faults).u64(&m.Syscalls)
}

// Value is a word of the statistics; Index is a layout.Stat.
type Value struct {
	Index uint16
	Value uint64
}

func (c *codec) value(m *Value) *codec {
	return c.u16(&m.Index).u64(&m.Value)
}

// Want says for whom and where resources are asked for.
type Want struct {
	Process uint64 // on whose behalf; 0 for the kernel itself
	Machine int32  // where; -1 for anywhere
	Spread  bool   // on as many machines as possible, else on as few
}

func (c *codec) want(m *Want) *codec {
	return c.u64(&m.Process).i32(&m.Machine).bool(&m.Spread)
}

// ProcessInfo is a process of the rack.
type ProcessInfo struct {
	PID, Parent uint64
	Home        uint16 // the machine it was started on
	State       uint8
	Threads     uint32
	Usage       Usage
	Name        string
}

func (c *codec) processInfo(m *ProcessInfo) *codec {
	c.u64(&m.PID).u64(&m.Parent).u16(&m.Home).u8(&m.State).u32(&m.Threads).usage(&m.Usage)
	c.str(&m.Name, MaxName)
	return c
}

// LogPosition is how far a log is, and who reads it.
type LogPosition struct {
	Log, Part           uint32
	Process, Generation uint64
	Head, Tail          uint64 // entries from Head on are kept, those below Tail are taken
	Replicas            []ReplicaPosition
}

func (c *codec) logPosition(m *LogPosition) *codec {
	c.u32(&m.Log).u32(&m.Part).u64(&m.Process).u64(&m.Generation).u64(&m.Head).u64(&m.Tail)
	list(c, &m.Replicas, MaxList, (*codec).replicaPosition)
	return c
}

// ReplicaPosition is how far a replica has come.
type ReplicaPosition struct {
	Slot    uint16
	State   uint8 // an oplog.State
	Machine int32 // -1 if it is not known
	Tail    uint64
}

func (c *codec) replicaPosition(m *ReplicaPosition) *codec {
	return c.u16(&m.Slot).u8(&m.State).i32(&m.Machine).u64(&m.Tail)
}
