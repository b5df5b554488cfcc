package main

import (
	"context"
	"time"
)

// longestStall returns, once ctx ends, how long the machine kept this process from
// running at the most: what a busy machine does to a login is not entrapg's doing.
func longestStall(ctx context.Context) time.Duration {
	const step = 20 * time.Millisecond
	longest := time.Duration(0)
	for before := time.Now(); sleep(ctx, step) == nil; before = time.Now() {
		longest = max(longest, time.Since(before)-step)
	}
	return longest
}
