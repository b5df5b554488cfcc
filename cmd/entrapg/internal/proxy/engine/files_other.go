//go:build !unix

package engine

import "math"

// maxFiles returns the maximal number of open files of the process.
func maxFiles() int { return math.MaxInt32 }
