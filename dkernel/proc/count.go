package proc

// ThreadCount is how many threads there are.
func (s *System) ThreadCount() int { return int(s.threads.Load()) }
