// Command soak runs entrapg under load, injects faults at random, and prints a
// report at the end.
//
//	soak -for 30m
//
// The load is two pools, a sql.DB and a pgxpool, with 32 workers each. Connections
// are short-lived, so that the pools log in all the time. The workers append to a
// table, which must contain all acknowledged rows at the end. The server is from
// package entrapgtest. azidentity fetches the tokens from its tenant.
//
// Ctrl-C ends the run early and prints the report. The exit code is 1 if a
// committed row is lost, if goroutines or memory grew, or if no fault explains a
// failed query.
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
	length := flag.Duration("for", time.Minute, "`duration` of the run")
	seed := flag.Uint64("seed", rand.Uint64(), "`seed` of the random order of faults")
	flag.Parse()
	if flag.NArg() > 0 || *length <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := soak(ctx, *length, *seed, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// tokenLife makes tokens expire often, and leaves time to refresh them.
const tokenLife = 15 * time.Second

// soak runs the load, writes its progress, and prints the report. ok reports
// whether there were no problems.
func soak(ctx context.Context, length time.Duration, seed uint64, to, progress io.Writer) (ok bool, err error) {
	running, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	ctx = context.WithoutCancel(ctx) // the steps after the load are not canceled
	p := &report{seed: seed, asked: length, injected: map[string]int{}, before: runtime.NumGoroutine()}

	server, err := entrapgtest.Start(ctx, entrapgtest.Config{TokenLife: tokenLife})
	if err != nil {
		return false, err
	}
	defer server.Close()
	r, err := startRig(ctx, server, server.DSN(), server.Tenant.NewServicePrincipal("soak"), true, true)
	if err != nil {
		return false, err
	}
	defer r.close()
	r.recover(running, &fault{name: "warm-up", within: time.Minute})
	p.began = time.Now()
	p.start = measure()

	var watching sync.WaitGroup
	watching.Go(func() { p.follow(running, progress, r) })
	injector{rig: r, report: p, random: rand.New(rand.NewPCG(seed, seed))}.run(running)
	watching.Wait()

	p.end = measure()
	p.took = time.Since(p.began)
	r.stopWorkers()
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
	return len(p.problems()) == 0, nil
}

// goroutinesLeft waits until at most want goroutines are left, or a minute. It returns
// their number.
func goroutinesLeft(want int) int {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if n := runtime.NumGoroutine(); n <= want || time.Now().After(end) {
			return n
		}
	}
}
