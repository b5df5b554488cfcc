package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Bounds on the growth of the heap.
const (
	heapFactor = 2
	heapSpare  = 32 << 20 // bytes: the server remembers thousands of logins
)

// A report is the result of a soak.
type report struct {
	seed        uint64
	asked, took time.Duration
	began       time.Time

	before, after      int // goroutines without any load
	start, middle, end measurement

	mu       sync.Mutex // guards the fields below
	now      string     // the active fault
	injected map[string]int

	logins, rejected, retries    int64
	poolLogins                   int64
	tokenRequests, tokenFailures int64
	tenantRequests               int
	slowest, stall               time.Duration
	failures                     map[string]map[string]int
	ledger                       counts
	violations                   []string
	violationCount               int
}

// A measurement covers the whole process, including the server's front.
type measurement struct {
	goroutines int
	heap       uint64
}

func measure() measurement {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return measurement{runtime.NumGoroutine(), m.HeapAlloc}
}

// enter records which fault is active. The name is empty if there is none.
func (p *report) enter(fault string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = fault
	if fault != "" {
		p.injected[fault]++
	}
}

func (p *report) fault() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// follow writes the progress, and measures at half-time.
func (p *report) follow(ctx context.Context, to io.Writer, r *rig) {
	for sleep(ctx, min(2*time.Second, p.asked/2)) == nil {
		since := time.Since(p.began)
		if p.middle.goroutines == 0 && since >= p.asked/2 {
			p.middle = measure()
		}
		committed := int64(0)
		for _, w := range r.ledger.writers {
			_, n := w.acknowledged()
			committed += n
		}
		_, violations := r.checker.verdict()
		fmt.Fprintf(to, "%v: %d logins, %d rows committed, %d queries failed, %d unexplained; %s\n", since.Round(time.Second),
			r.connects.count(sqlDB)+r.connects.count(pgxPool), committed, total(r.checker.failures()), violations, p.fault())
	}
}

// collect copies the counters of the load.
func (p *report) collect(r *rig) {
	stats := r.connector.Stats()
	p.logins, p.rejected, p.retries = stats.Logins, stats.LoginsRejected, stats.LoginRetries
	p.tokenRequests, p.tokenFailures = stats.TokenRequests, stats.TokenFailures
	p.tenantRequests = r.server.Tenant.Requests()
	p.poolLogins = r.connects.count(pgxPool)
	p.slowest = r.connects.max()
	p.failures = r.checker.failures()
	p.stall = r.checker.longestStall()
	p.violations, p.violationCount = r.checker.verdict()
}

// problems returns the problems of the run, such as lost rows.
func (p *report) problems() []string {
	var all []string
	if p.ledger.lost > 0 {
		all = append(all, fmt.Sprintf("%d rows that were committed are lost", p.ledger.lost))
	}
	if p.ledger.committed == 0 {
		all = append(all, "nothing was committed")
	}
	if p.after > p.before {
		all = append(all, fmt.Sprintf("%d goroutines are left over", p.after-p.before))
	}
	if p.end.heap > heapFactor*p.start.heap+heapSpare {
		all = append(all, "the heap has grown")
	}
	if p.violationCount > 0 {
		all = append(all, fmt.Sprintf("%d failures that no fault explains", p.violationCount))
	}
	return all
}

func (p *report) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("soak", "%v of %v, seed %d", p.took.Round(time.Second), p.asked, p.seed)
	row("load", "%d workers on a sql.DB and %d on a pgxpool; %d connections each, for %v each",
		workers, workers, conns, lifetime)
	row("logins", "%d sql.DB, %d pgxpool", p.logins, p.poolLogins)
	row("rejected logins", "%d sql.DB, %d pgxpool", p.rejected, rejectedLogins(p.failures[pgxPool]))
	row("retries", "%d sql.DB", p.retries)
	row("token requests", "%d by entrapg, %d of them failed; %d reached the tenant",
		p.tokenRequests, p.tokenFailures, p.tenantRequests)
	row("slowest connect", "%v; the machine stalled for %v at most",
		p.slowest.Round(time.Millisecond), p.stall.Round(time.Millisecond))
	row("rows", "%d committed, %d found, %d lost", p.ledger.committed, p.ledger.found, p.ledger.lost)
	if p.middle.goroutines == 0 { // it ended before half-time
		p.middle = p.end
	}
	row("goroutines", "%d at the start, %d in the middle, %d at the end; %d before the load, %d after",
		p.start.goroutines, p.middle.goroutines, p.end.goroutines, p.before, p.after)
	row("heap", "%s at the start, %s in the middle, %s at the end",
		mega(p.start.heap), mega(p.middle.heap), mega(p.end.heap))
	fmt.Fprintf(w, "\nqueries that failed\t%s\t%s\n", sqlDB, pgxPool)
	causes := maps.Clone(p.failures[sqlDB])
	if causes == nil {
		causes = map[string]int{}
	}
	maps.Copy(causes, p.failures[pgxPool])
	for _, cause := range slices.Sorted(maps.Keys(causes)) {
		fmt.Fprintf(w, "  %s\t%d\t%d\n", cause, p.failures[sqlDB][cause], p.failures[pgxPool][cause])
	}
	fmt.Fprintf(w, "  unexplained by a fault\t%d\n", p.violationCount)
	fmt.Fprintf(w, "\nfaults injected\t\n")
	for _, name := range slices.Sorted(maps.Keys(p.injected)) {
		fmt.Fprintf(w, "  %d\t%.100s\n", p.injected[name], name)
	}
	w.Flush()
	for _, violation := range p.violations {
		fmt.Fprintln(to, "unexplained:", violation)
	}
	verdict := "passed: no rows lost, no goroutines left over, no unexplained failures"
	if all := p.problems(); len(all) > 0 {
		verdict = fmt.Sprintf("FAILED: %q", all)
	}
	fmt.Fprintf(to, "\n%s\n", verdict)
}

// rejectedLogins counts logins that the server rejected.
func rejectedLogins(failures map[string]int) int {
	n := 0
	for cause, count := range failures {
		if strings.HasPrefix(cause, "login 28") {
			n += count
		}
	}
	return n
}

func mega(bytes uint64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20)) }
