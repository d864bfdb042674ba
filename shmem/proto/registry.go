package proto

import "fmt"

// Type is what a request is. Numbers are part of the protocol: never change or reuse one, only add.
type Type uint16

// The types.
const (
	TypeNull          Type = 1
	TypeRegister      Type = 2
	TypeLeave         Type = 3
	TypeTopology      Type = 4
	TypeHeartbeat     Type = 5
	TypeMembership    Type = 6
	TypeFence         Type = 7
	TypeShutdown      Type = 8
	TypeRequestCores  Type = 10
	TypeReleaseCores  Type = 11
	TypeRequestSlices Type = 12
	TypeReleaseSlices Type = 13
	TypeReclaim       Type = 14
	TypeAudit         Type = 15
	TypeAssignLog     Type = 16
	TypeReleaseLog    Type = 17
	TypeShootdown     Type = 18
	TypeClaim         Type = 19
	TypeLogLine       Type = 20
	TypeReadLog       Type = 21
	TypeStatistics    Type = 22
	TypeStatus        Type = 23
	TypeLogPositions  Type = 24
	TypeDrain         Type = 25
	TypeSchedShow     Type = 26
	TypeSchedSet      Type = 27
	TypeSchedExplain  Type = 28
	TypeCreateProcess Type = 30
	TypeExitProcess   Type = 31
	TypeKillProcess   Type = 32
	TypeSignalProcess Type = 33
	TypeWaitProcess   Type = 34
	TypeStartThread   Type = 35
	TypeExitThread    Type = 36
	TypeFutex         Type = 37
	TypeOpen          Type = 40
	TypeClose         Type = 41
	TypeRead          Type = 42
	TypeWrite         Type = 43
	TypeStat          Type = 44
	TypeGetdents      Type = 45
	TypeUnlink        Type = 46
	TypeRename        Type = 47
	TypeMkdir         Type = 48
	TypeSymlink       Type = 49
	TypeLink          Type = 50
	TypeReadlink      Type = 51
	TypeSetAttr       Type = 52
	TypeSync          Type = 53
	TypeStatfs        Type = 54
	TypeAllocate      Type = 55
	TypeLockFile      Type = 56
	TypeConsole       Type = 60
	TypeStdio         Type = 61
	TypeResize        Type = 62
	TypeGetFile       Type = 63
	TypePutFile       Type = 64
	TypeRun           Type = 65

	// Types is one more than the largest type.
	Types Type = 66
)

// registry has all types.
var registry = [Types]Info{
	TypeNull:          {Name: "Null", Request: request[Null], Reply: reply[NullReply]},
	TypeRegister:      {Name: "Register", Request: request[Register], Reply: reply[RegisterReply]},
	TypeLeave:         {Name: "Leave", Request: request[Leave], Reply: reply[Done]},
	TypeTopology:      {Name: "Topology", Request: request[Topology], Reply: reply[TopologyReply]},
	TypeHeartbeat:     {Name: "Heartbeat", Request: request[Heartbeat], Reply: reply[HeartbeatReply]},
	TypeMembership:    {Name: "Membership", Request: request[Membership], Event: true},
	TypeFence:         {Name: "Fence", Request: request[Fence], Reply: reply[Done]},
	TypeShutdown:      {Name: "Shutdown", Request: request[Shutdown], Reply: reply[Done]},
	TypeRequestCores:  {Name: "RequestCores", Request: request[RequestCores], Reply: reply[RequestCoresReply]},
	TypeReleaseCores:  {Name: "ReleaseCores", Request: request[ReleaseCores], Reply: reply[Done]},
	TypeRequestSlices: {Name: "RequestSlices", Request: request[RequestSlices], Reply: reply[RequestSlicesReply]},
	TypeReleaseSlices: {Name: "ReleaseSlices", Request: request[ReleaseSlices], Reply: reply[Done]},
	TypeReclaim:       {Name: "Reclaim", Request: request[Reclaim], Reply: reply[Done]},
	TypeAudit:         {Name: "Audit", Request: request[Audit], Reply: reply[AuditReply]},
	TypeAssignLog:     {Name: "AssignLog", Request: request[AssignLog], Reply: reply[AssignLogReply]},
	TypeReleaseLog:    {Name: "ReleaseLog", Request: request[ReleaseLog], Reply: reply[Done]},
	TypeShootdown:     {Name: "Shootdown", Request: request[Shootdown], Reply: reply[Done]},
	TypeClaim:         {Name: "Claim", Request: request[Claim], Reply: reply[ClaimReply]},
	TypeLogLine:       {Name: "LogLine", Request: request[LogLine], Event: true},
	TypeReadLog:       {Name: "ReadLog", Request: request[ReadLog], Reply: reply[ReadLogReply], Stream: true},
	TypeStatistics:    {Name: "Statistics", Request: request[Statistics], Reply: reply[StatisticsReply]},
	TypeStatus:        {Name: "Status", Request: request[Status], Reply: reply[StatusReply]},
	TypeLogPositions:  {Name: "LogPositions", Request: request[LogPositions], Reply: reply[LogPositionsReply]},
	TypeDrain:         {Name: "Drain", Request: request[Drain], Reply: reply[DrainReply]},
	TypeSchedShow:     {Name: "SchedShow", Request: request[SchedShow], Reply: reply[SchedShowReply]},
	TypeSchedSet:      {Name: "SchedSet", Request: request[SchedSet], Reply: reply[SchedSetReply]},
	TypeSchedExplain:  {Name: "SchedExplain", Request: request[SchedExplain], Reply: reply[SchedExplainReply]},
	TypeCreateProcess: {Name: "CreateProcess", Request: request[CreateProcess], Reply: reply[CreateProcessReply]},
	TypeExitProcess:   {Name: "ExitProcess", Request: request[ExitProcess], Reply: reply[Done]},
	TypeKillProcess:   {Name: "KillProcess", Request: request[KillProcess], Reply: reply[Done]},
	TypeSignalProcess: {Name: "SignalProcess", Request: request[SignalProcess], Reply: reply[Done]},
	TypeWaitProcess:   {Name: "WaitProcess", Request: request[WaitProcess], Reply: reply[WaitProcessReply]},
	TypeStartThread:   {Name: "StartThread", Request: request[StartThread], Reply: reply[StartThreadReply]},
	TypeExitThread:    {Name: "ExitThread", Request: request[ExitThread], Reply: reply[Done]},
	TypeFutex:         {Name: "Futex", Request: request[Futex], Reply: reply[FutexReply]},
	TypeOpen:          {Name: "Open", Request: request[Open], Reply: reply[OpenReply]},
	TypeClose:         {Name: "Close", Request: request[Close], Reply: reply[Done]},
	TypeRead:          {Name: "Read", Request: request[Read], Reply: reply[ReadReply]},
	TypeWrite:         {Name: "Write", Request: request[Write], Reply: reply[WriteReply]},
	TypeStat:          {Name: "Stat", Request: request[Stat], Reply: reply[StatReply]},
	TypeGetdents:      {Name: "Getdents", Request: request[Getdents], Reply: reply[GetdentsReply]},
	TypeUnlink:        {Name: "Unlink", Request: request[Unlink], Reply: reply[Done]},
	TypeRename:        {Name: "Rename", Request: request[Rename], Reply: reply[Done]},
	TypeMkdir:         {Name: "Mkdir", Request: request[Mkdir], Reply: reply[Done]},
	TypeSymlink:       {Name: "Symlink", Request: request[Symlink], Reply: reply[Done]},
	TypeLink:          {Name: "Link", Request: request[Link], Reply: reply[Done]},
	TypeReadlink:      {Name: "Readlink", Request: request[Readlink], Reply: reply[ReadlinkReply]},
	TypeSetAttr:       {Name: "SetAttr", Request: request[SetAttr], Reply: reply[SetAttrReply]},
	TypeSync:          {Name: "Sync", Request: request[Sync], Reply: reply[Done]},
	TypeStatfs:        {Name: "Statfs", Request: request[Statfs], Reply: reply[StatfsReply]},
	TypeAllocate:      {Name: "Allocate", Request: request[Allocate], Reply: reply[Done]},
	TypeLockFile:      {Name: "LockFile", Request: request[LockFile], Reply: reply[Done]},
	TypeConsole:       {Name: "Console", Request: request[Console], Reply: reply[ConsoleReply], Stream: true},
	TypeStdio:         {Name: "Stdio", Request: request[Stdio], Reply: reply[StdioReply], Stream: true},
	TypeResize:        {Name: "Resize", Request: request[Resize], Event: true},
	TypeGetFile:       {Name: "GetFile", Request: request[GetFile], Reply: reply[GetFileReply], Stream: true},
	TypePutFile:       {Name: "PutFile", Request: request[PutFile], Reply: reply[PutFileReply], Stream: true},
	TypeRun:           {Name: "Run", Request: request[Run], Reply: reply[RunReply], Stream: true},
}

// The types of requests.

func (*Null) Type() Type          { return TypeNull }
func (*Register) Type() Type      { return TypeRegister }
func (*Leave) Type() Type         { return TypeLeave }
func (*Topology) Type() Type      { return TypeTopology }
func (*Heartbeat) Type() Type     { return TypeHeartbeat }
func (*Membership) Type() Type    { return TypeMembership }
func (*Fence) Type() Type         { return TypeFence }
func (*Shutdown) Type() Type      { return TypeShutdown }
func (*RequestCores) Type() Type  { return TypeRequestCores }
func (*ReleaseCores) Type() Type  { return TypeReleaseCores }
func (*RequestSlices) Type() Type { return TypeRequestSlices }
func (*ReleaseSlices) Type() Type { return TypeReleaseSlices }
func (*Reclaim) Type() Type       { return TypeReclaim }
func (*Audit) Type() Type         { return TypeAudit }
func (*AssignLog) Type() Type     { return TypeAssignLog }
func (*ReleaseLog) Type() Type    { return TypeReleaseLog }
func (*Shootdown) Type() Type     { return TypeShootdown }
func (*Claim) Type() Type         { return TypeClaim }
func (*LogLine) Type() Type       { return TypeLogLine }
func (*ReadLog) Type() Type       { return TypeReadLog }
func (*Statistics) Type() Type    { return TypeStatistics }
func (*Status) Type() Type        { return TypeStatus }
func (*LogPositions) Type() Type  { return TypeLogPositions }
func (*Drain) Type() Type         { return TypeDrain }
func (*SchedShow) Type() Type     { return TypeSchedShow }
func (*SchedSet) Type() Type      { return TypeSchedSet }
func (*SchedExplain) Type() Type  { return TypeSchedExplain }
func (*CreateProcess) Type() Type { return TypeCreateProcess }
func (*ExitProcess) Type() Type   { return TypeExitProcess }
func (*KillProcess) Type() Type   { return TypeKillProcess }
func (*SignalProcess) Type() Type { return TypeSignalProcess }
func (*WaitProcess) Type() Type   { return TypeWaitProcess }
func (*StartThread) Type() Type   { return TypeStartThread }
func (*ExitThread) Type() Type    { return TypeExitThread }
func (*Futex) Type() Type         { return TypeFutex }
func (*Open) Type() Type          { return TypeOpen }
func (*Close) Type() Type         { return TypeClose }
func (*Read) Type() Type          { return TypeRead }
func (*Write) Type() Type         { return TypeWrite }
func (*Stat) Type() Type          { return TypeStat }
func (*Getdents) Type() Type      { return TypeGetdents }
func (*Unlink) Type() Type        { return TypeUnlink }
func (*Rename) Type() Type        { return TypeRename }
func (*Mkdir) Type() Type         { return TypeMkdir }
func (*Symlink) Type() Type       { return TypeSymlink }
func (*Link) Type() Type          { return TypeLink }
func (*Readlink) Type() Type      { return TypeReadlink }
func (*SetAttr) Type() Type       { return TypeSetAttr }
func (*Sync) Type() Type          { return TypeSync }
func (*Statfs) Type() Type        { return TypeStatfs }
func (*Allocate) Type() Type      { return TypeAllocate }
func (*LockFile) Type() Type      { return TypeLockFile }
func (*Console) Type() Type       { return TypeConsole }
func (*Stdio) Type() Type         { return TypeStdio }
func (*Resize) Type() Type        { return TypeResize }
func (*GetFile) Type() Type       { return TypeGetFile }
func (*PutFile) Type() Type       { return TypePutFile }
func (*Run) Type() Type           { return TypeRun }

// Request is a message that asks, tells or opens; replies have no type of their own.
type Request interface {
	Message
	Type() Type
}

// Info is what there is to know of a type.
type Info struct {
	Name    string
	Request func() Request // a new, zero one
	Reply   func() Message // nil for an event
	Event   bool           // it has no reply
	Stream  bool           // it opens a stream
}

// Lookup is the entry of a type in the registry.
func Lookup(t Type) (Info, bool) {
	if t >= Types || registry[t].Name == "" {
		return Info{}, false
	}
	return registry[t], true
}

func (t Type) String() string {
	if i, ok := Lookup(t); ok {
		return i.Name
	}
	return fmt.Sprintf("type(%d)", uint16(t))
}

// request and reply make a new message for the registry.
func request[M any, P interface {
	*M
	Request
}]() Request {
	return P(new(M))
}

func reply[M any, P interface {
	*M
	Message
}]() Message {
	return P(new(M))
}
