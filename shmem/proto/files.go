package proto

// Files. Failures are an ErrorReply with CodeErrno. Handles belong to the caller's life and end with it.

// Open opens or creates a file.
type Open struct {
	Dir         uint64 // a handle; 0 for the root
	Flags, Mode uint32 // as of open(2) on amd64
	Path        string
}

func (m *Open) code(c *codec) { c.u64(&m.Dir).u32(&m.Flags).u32(&m.Mode).str(&m.Path, MaxPath) }

// OpenReply answers [Open].
type OpenReply struct {
	Handle uint64
	Attr   Attr
}

func (m *OpenReply) code(c *codec) { c.u64(&m.Handle).attr(&m.Attr) }

// Close gives a handle back.
type Close struct{ Handle uint64 }

func (m *Close) code(c *codec) { c.u64(&m.Handle) }

// Read reads; no data is the end of the file.
type Read struct {
	Handle, Offset uint64
	Count          uint32 // at most MaxData
}

func (m *Read) code(c *codec) { c.u64(&m.Handle).u64(&m.Offset).u32(&m.Count) }

// ReadReply answers [Read].
type ReadReply struct{ Data []byte }

func (m *ReadReply) code(c *codec) { c.bytes(&m.Data, MaxData) }

// Write writes; it may write less.
type Write struct {
	Handle, Offset uint64
	Append         bool
	Data           []byte
}

func (m *Write) code(c *codec) {
	c.u64(&m.Handle).u64(&m.Offset).bool(&m.Append).bytes(&m.Data, MaxData)
}

// WriteReply answers [Write].
type WriteReply struct {
	Count uint32
	Size  uint64 // of the file behind it
}

func (m *WriteReply) code(c *codec) { c.u32(&m.Count).u64(&m.Size) }

// Stat reads attributes.
type Stat struct {
	Handle uint64 // of the file, or with a path of the directory to start from
	Follow bool
	Path   string
}

func (m *Stat) code(c *codec) { c.u64(&m.Handle).bool(&m.Follow).str(&m.Path, MaxPath) }

// StatReply answers [Stat].
type StatReply struct{ Attr Attr }

func (m *StatReply) code(c *codec) { c.attr(&m.Attr) }

// Getdents reads a directory from an offset; no entries is the end.
type Getdents struct {
	Handle, Offset uint64
	Count          uint32 // bytes, at most MaxData
}

func (m *Getdents) code(c *codec) { c.u64(&m.Handle).u64(&m.Offset).u32(&m.Count) }

// GetdentsReply answers [Getdents].
type GetdentsReply struct{ Entries []Dirent }

func (m *GetdentsReply) code(c *codec) { list(c, &m.Entries, MaxList, (*codec).dirent) }

// Unlink removes a name.
type Unlink struct {
	Dir       uint64
	RemoveDir bool
	Path      string
}

func (m *Unlink) code(c *codec) { c.u64(&m.Dir).bool(&m.RemoveDir).str(&m.Path, MaxPath) }

// Rename renames.
type Rename struct {
	FromDir, ToDir uint64
	Flags          uint32
	From, To       string
}

func (m *Rename) code(c *codec) {
	c.u64(&m.FromDir).u64(&m.ToDir).u32(&m.Flags).str(&m.From, MaxPath).str(&m.To, MaxPath)
}

// Mkdir makes a directory.
type Mkdir struct {
	Dir  uint64
	Mode uint32
	Path string
}

func (m *Mkdir) code(c *codec) { c.u64(&m.Dir).u32(&m.Mode).str(&m.Path, MaxPath) }

// Symlink makes a symbolic link.
type Symlink struct {
	Dir          uint64
	Path, Target string
}

func (m *Symlink) code(c *codec) { c.u64(&m.Dir).str(&m.Path, MaxPath).str(&m.Target, MaxPath) }

// Link makes a hard link.
type Link struct {
	FromDir, ToDir uint64
	From, To       string
}

func (m *Link) code(c *codec) {
	c.u64(&m.FromDir).u64(&m.ToDir).str(&m.From, MaxPath).str(&m.To, MaxPath)
}

// Readlink reads a symbolic link.
type Readlink struct {
	Dir  uint64
	Path string
}

func (m *Readlink) code(c *codec) { c.u64(&m.Dir).str(&m.Path, MaxPath) }

// ReadlinkReply answers [Readlink].
type ReadlinkReply struct{ Target string }

func (m *ReadlinkReply) code(c *codec) { c.str(&m.Target, MaxPath) }

// SetAttr changes attributes (chmod, chown, truncate, utimes).
type SetAttr struct {
	Handle uint64
	Path   string
	Set    uint32 // which of Attr: bit 0 mode, 1 owner, 2 group, 3 size, 4 accessed, 5 modified
	Attr   Attr
}

func (m *SetAttr) code(c *codec) { c.u64(&m.Handle).str(&m.Path, MaxPath).u32(&m.Set).attr(&m.Attr) }

// SetAttrReply answers [SetAttr].
type SetAttrReply struct{ Attr Attr }

func (m *SetAttrReply) code(c *codec) { c.attr(&m.Attr) }

// Sync makes a file durable.
type Sync struct {
	Handle   uint64
	DataOnly bool
}

func (m *Sync) code(c *codec) { c.u64(&m.Handle).bool(&m.DataOnly) }

// Statfs tells about a file system.
type Statfs struct{ Path string }

func (m *Statfs) code(c *codec) { c.str(&m.Path, MaxPath) }

// StatfsReply answers [Statfs].
type StatfsReply struct {
	Type, Blocks, Free, Files, FreeFiles uint64
	BlockSize, NameMax                   uint32
}

func (m *StatfsReply) code(c *codec) {
	c.u64(&m.Type).u64(&m.Blocks).u64(&m.Free).u64(&m.Files).u64(&m.FreeFiles).u32(&m.BlockSize)
	c.u32(&m.NameMax)
}

// Allocate reserves or frees space in a file (fallocate).
type Allocate struct {
	Handle, Offset, Length uint64
	Mode                   uint32
}

func (m *Allocate) code(c *codec) { c.u64(&m.Handle).u64(&m.Offset).u64(&m.Length).u32(&m.Mode) }

// LockFile locks a range for an owner.
type LockFile struct {
	Handle, Start, End, Owner uint64
	Kind                      uint8 // 0 unlock, 1 shared, 2 exclusive
	Wait                      bool
}

func (m *LockFile) code(c *codec) {
	c.u64(&m.Handle).u64(&m.Start).u64(&m.End).u64(&m.Owner).u8(&m.Kind).bool(&m.Wait)
}

// Streams. A stream opens with one of these; its bytes flow both ways, each within the window that its receiver grants.

// Console attaches to a kernel's console.
type Console struct {
	Machine       int32
	Rows, Columns uint16
	History       uint32 // bytes of the past to begin with
}

func (m *Console) code(c *codec) { c.i32(&m.Machine).u16(&m.Rows).u16(&m.Columns).u32(&m.History) }

// ConsoleReply answers [Console].
type ConsoleReply struct{}

func (m *ConsoleReply) code(c *codec) {}

// Stdio attaches to a standard stream of a process.
type Stdio struct {
	PID           uint64
	FD            int32
	Rows, Columns uint16
}

func (m *Stdio) code(c *codec) { c.u64(&m.PID).i32(&m.FD).u16(&m.Rows).u16(&m.Columns) }

// StdioReply answers [Stdio].
type StdioReply struct{ Terminal bool }

func (m *StdioReply) code(c *codec) { c.bool(&m.Terminal) }

// Resize tells the size of the terminal at the end of a stream.
type Resize struct {
	Stream        uint64 // its id
	Rows, Columns uint16
}

func (m *Resize) code(c *codec) { c.u64(&m.Stream).u16(&m.Rows).u16(&m.Columns) }

// GetFile opens a stream that brings a file.
type GetFile struct {
	Offset uint64
	Path   string
}

func (m *GetFile) code(c *codec) { c.u64(&m.Offset).str(&m.Path, MaxPath) }

// GetFileReply answers [GetFile].
type GetFileReply struct{ Attr Attr }

func (m *GetFileReply) code(c *codec) { c.attr(&m.Attr) }

// PutFile opens a stream that takes a file; the file has its name only when all of it came.
type PutFile struct {
	Mode uint32
	Size uint64
	Path string
}

func (m *PutFile) code(c *codec) { c.u32(&m.Mode).u64(&m.Size).str(&m.Path, MaxPath) }

// PutFileReply answers [PutFile].
type PutFileReply struct{}

func (m *PutFileReply) code(c *codec) {}

// Run starts a program with its standard input and output on the stream. WaitProcess brings its status.
type Run struct {
	Want          Want
	UID, GID      uint32
	Cores         uint16
	Slices        uint32
	Terminal      bool
	Rows, Columns uint16
	Path, Dir     string
	Args, Env     []string
	Root          string // archive (cpio) in the dkernel's file system that becomes the program's root directory; "" for the dkernel's
	Trace         bool   // write its system calls to its error output, or to its terminal
}

func (m *Run) code(c *codec) {
	c.want(&m.Want).u32(&m.UID).u32(&m.GID).u16(&m.Cores).u32(&m.Slices).bool(&m.Terminal).u16(&m.Rows)
	c.u16(&m.Columns).str(&m.Path, MaxPath).str(&m.Dir, MaxPath).strs(&m.Args, MaxArgs, MaxArg)
	c.strs(&m.Env, MaxArgs, MaxArg).str(&m.Root, MaxPath).bool(&m.Trace)
}

// RunReply answers [Run].
type RunReply struct {
	PID  uint64
	Home uint16
}

func (m *RunReply) code(c *codec) { c.u64(&m.PID).u16(&m.Home) }
