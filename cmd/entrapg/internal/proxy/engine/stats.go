package engine

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are the counters of a Server since it was created, and its gauges.
type Stats struct {
	Open     int64 // client connections open now, including those that log in
	Waiting  int64 // open connections that have not authenticated
	Accepted int64 // client connections accepted
	Sessions int64 // logins that succeeded
	Cancels  int64 // cancel requests forwarded

	// Login counts the durations of the logins that succeeded, from the client's startup
	// message until the session is ready.
	Login Histogram

	// Rejected counts the connections that got no session.
	Rejected map[Rejection]int64

	FromClients int64 // bytes that clients sent in sessions, without TLS
	ToClients   int64 // bytes that were sent to clients in sessions, without TLS
}

// A Rejection is the reason why a connection got no session.
type Rejection string

// The kinds of rejections, which are the values of a label of a metric.
const (
	RejectedStartup  Rejection = "startup"     // no valid startup in time
	RejectedPassword Rejection = "password"    // not the proxy's password
	RejectedLimit    Rejection = "limit"       // too many connections
	RejectedDropped  Rejection = "dropped"     // not authenticated, and replaced by a newer client
	RejectedShutdown Rejection = "shutdown"    // the proxy is shutting down
	RejectedToken    Rejection = "token"       // no token, or no user in it
	RejectedServer   Rejection = "server"      // the server rejected the login or had another error
	RejectedNetwork  Rejection = "unreachable" // the server cannot be reached or verified
)

// Rejections lists all kinds.
var Rejections = []Rejection{
	RejectedStartup, RejectedPassword, RejectedLimit, RejectedDropped, RejectedShutdown,
	RejectedToken, RejectedServer, RejectedNetwork,
}

// LoginBuckets are the upper bounds of a Histogram's buckets.
var LoginBuckets = [...]time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second,
}

// A Histogram counts durations.
type Histogram struct {
	Counts []int64 // of each of LoginBuckets, not cumulative, and one for longer ones
	Sum    time.Duration
}

// Count returns the number of durations.
func (h Histogram) Count() int64 {
	var n int64
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// A histogram is a Histogram that is being filled.
type histogram struct {
	counts [len(LoginBuckets) + 1]atomic.Int64 // of LoginBuckets, and of longer ones
	sum    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(LoginBuckets) && d > LoginBuckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) snapshot() Histogram {
	s := Histogram{Counts: make([]int64, len(h.counts)), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	return s
}

// rejections counts by kind.
type rejections struct {
	mu     sync.Mutex
	counts map[Rejection]int64
}

func (r *rejections) add(kind Rejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[Rejection]int64{}
	}
	r.counts[kind]++
}

func (r *rejections) snapshot() map[Rejection]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[Rejection]int64{}
	for _, kind := range Rejections {
		all[kind] = 0
	}
	maps.Copy(all, r.counts)
	return all
}
