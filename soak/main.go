// Command soak puts a load on entrapg, injects faults at random, and prints a page
// about it at the end.
//
//	soak -for 30m
//
// The load is two pools, a sql.DB and a pgxpool, with 32 workers each, whose
// connections live so briefly that logins never cease. They append to a table,
// and at the end all that was acknowledged has to be there. The server is package
// entrapgtest's, and the tokens come from its tenant through azidentity.
//
// Ctrl-C ends it early, with the page. The exit code is 1 where something that was
// committed is lost, where goroutines or memory grew, or where a query failed that
// no fault explains.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/entrapg/entrapg/entrapgtest"
)

func main() {
	length := flag.Duration("for", time.Minute, "how long")
	seed := flag.Uint64("seed", rand.Uint64(), "of the order of faults")
	flag.Parse()
	if flag.NArg() > 0 || *length <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	well, err := soak(ctx, *length, *seed, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !well {
		os.Exit(1)
	}
}

// tokenLife makes tokens expire often, and leaves time to replace them.
const tokenLife = 15 * time.Second

// soak runs the load for a while, tells of its progress, and prints the page. Well tells that nothing on
// it is out of bounds.
func soak(ctx context.Context, length time.Duration, seed uint64, to, progress io.Writer) (well bool, err error) {
	running, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	ctx = context.WithoutCancel(ctx) // what follows the end of the load is not to be cut short
	p := &page{seed: seed, asked: length, injected: map[string]int{}, before: runtime.NumGoroutine()}

	server, err := entrapgtest.Start(ctx, entrapgtest.Config{TokenLife: tokenLife})
	if err != nil {
		return false, err
	}
	defer server.Close()
	r, err := startRig(ctx, server, server.DSN(), "soak", tokenLife, true)
	if err != nil {
		return false, err
	}
	defer r.close()
	r.recover(running, &fault{name: "warm-up", within: time.Minute})
	p.began = time.Now()
	p.start = measure()

	var watching sync.WaitGroup
	watching.Go(func() { p.report(running, progress, r) })
	p.inject(running, r, rand.New(rand.NewPCG(seed, seed)))
	watching.Wait()

	p.end = measure()
	p.took = time.Since(p.began)
	r.rest()
	p.ledger, err = r.ledger.audit(ctx, server.AdminDSN())
	if err != nil {
		return false, err
	}
	p.collect(r)
	r.close()
	if err := r.noSessions(ctx, server.AdminDSN()); err != nil {
		return false, err
	}
	if err := server.Close(); err != nil {
		return false, err
	}
	p.after = goroutinesLeft(p.before)
	p.print(to)
	return len(p.complaints()) == 0, nil
}

// inject has one fault follow the other until ctx ends: all of them in an order
// of chance, and then again in another one.
func (p *page) inject(ctx context.Context, r *rig, random *rand.Rand) {
	var deck []int
	for ctx.Err() == nil {
		if len(deck) == 0 {
			deck = random.Perm(len(faults))
		}
		f := faults[deck[0]]
		deck = deck[1:]
		p.enter(f.name)
		if _, err := r.suffer(ctx, &f); err != nil && ctx.Err() == nil {
			r.umpire.protest("%s cannot be injected: %v", f.name, err)
		}
		p.enter("")
		// Until the next fault, nothing may fail any more.
		calm := f.within + r.umpire.slack + r.umpire.longestStall() + time.Duration(random.Int64N(int64(2*time.Second)))
		_ = sleep(ctx, calm)
	}
	// What the last fault has broken is under way.
	_ = sleep(context.WithoutCancel(ctx), soon)
}

// goroutinesLeft waits a moment for goroutines that are about to end.
func goroutinesLeft(want int) int {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n := runtime.NumGoroutine(); n <= want || time.Now().After(end) {
			return n
		}
	}
}
