package launch

import (
	"errors"
	"io"
)

// isEOF tells the orderly end of a stream from its failure.
func isEOF(err error) bool { return errors.Is(err, io.EOF) }
