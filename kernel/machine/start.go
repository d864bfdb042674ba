package machine

// Start finishes what needs the Go runtime: it brings up the other CPUs. The first call of a kernel's main.
func Start() error {
	return startCPUs()
}
