package main

// exitStatus is the status of the process for an error of run.
func exitStatus(error) int { return 1 }
