package sys

// Args are the arguments of a system call: RDI, RSI, RDX, R10, R8, R9.
type Args [6]uint64

// Level is how well a system call is served.
type Level uint8

// The levels.
const (
	None    Level = iota // ENOSYS, and counted
	Refused              // an error that Linux gives too, where the feature is not there or not allowed
	Partial              // the Note says what is missing
	Full
)

func (l Level) String() string { return [...]string{"none", "refused", "partial", "full"}[l] }
