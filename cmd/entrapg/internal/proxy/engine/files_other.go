//go:build !unix

package engine

import "math"

// maxFiles returns how many files the process can have open.
func maxFiles() int { return math.MaxInt32 }
