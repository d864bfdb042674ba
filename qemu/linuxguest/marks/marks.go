// Package marks holds the lines by which process 1 of the Linux guest frames a
// program's output on the console.
package marks

// A line that begins with one of these, and what follows on it.
const (
	Begin = "##dinos-linux-begin " // kernel release; the program's output starts after this line
	Exit  = "##dinos-linux-exit "  // exit status; preceded by a newline that is not the program's
	Fail  = "##dinos-linux-fail "  // why the program could not be run
)
