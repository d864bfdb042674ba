package signal

// Waiting is used by TamaGo's package amd64 to see whether its runtime polls for interrupts. Ours never does:
// interrupts do not reach the kernel as signals.
func Waiting() bool { return false }
