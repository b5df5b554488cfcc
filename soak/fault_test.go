package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/entrapg/entrapg/entrapgtest"
)

// postgres is the real server behind the fronts of most tests.
var postgres = sync.OnceValues(func() (*entrapgtest.Server, error) {
	return entrapgtest.Start(context.Background(), entrapgtest.Config{})
})

func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			os.Unsetenv(name)
		}
	}
	workers, pause = conns, 250*time.Millisecond // more work shows no other failures
	code := m.Run()
	if s, err := postgres(); err == nil {
		s.Close()
	}
	os.Exit(code)
}

func start(t testing.TB, config entrapgtest.Config) *entrapgtest.Server {
	t.Helper()
	s, err := entrapgtest.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestLoad_FailsOnlyAsFaultsAllow checks the table of faults: which queries may fail,
// and until when.
func TestLoad_FailsOnlyAsFaultsAllow(t *testing.T) {
	shared, err := postgres()
	if err != nil {
		t.Fatal(err)
	}
	before, heap := goleak.IgnoreCurrent(), heapInUse()
	t.Run("faults", func(t *testing.T) {
		for i, n := 0, 0; i < len(faults); i += n {
			first := faults[i]
			name := cmp.Or(first.group, first.name)
			n = 1
			for first.group != "" && i+n < len(faults) && faults[i+n].group == first.group {
				n++
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel() // most of the time is spent on waiting
				testFaults(t, shared, faults[i:i+n])
			})
		}
	})
	noneLeft(t, before)
	if now := heapInUse(); now > heap*3/2+8<<20 {
		t.Errorf("heap in use: %d bytes, was %d", now, heap)
	}
}

// testFaults injects several faults into one load.
func testFaults(t *testing.T, shared *entrapgtest.Server, faults []fault) {
	config := entrapgtest.Config{TokenLife: faults[0].tokenLife}
	if !faults[0].restarts {
		config.Upstream = shared.AdminDSN()
	}
	server := start(t, config)
	app := server.Tenant.NewServicePrincipal("app-" + rand.Text()[:8])
	// Clients consider tokens expired when TokenLife ends. The server still accepts them, so
	// that on a busy machine none expires on its way to the server.
	app.Claims = map[string]any{"exp": time.Now().Add(time.Hour).Unix()}
	r, err := startRig(t.Context(), server, server.DSN(), app, false, faults[0].overHTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	warm(t, r)
	for _, f := range faults {
		saw, err := r.expose(t.Context(), &f)
		if err != nil {
			t.Fatal(err)
		}
		if !f.hadEffect(saw) {
			t.Errorf("%s: the fault had no effect, or too much: %+v", f.name, saw)
		}
		t.Logf("%s: %+v, failures so far %v", f.name, saw, r.checker.failures())
	}
	finish(t, r, server.AdminDSN())
}

// noneLeft waits until no goroutine is left that before does not ignore.
func noneLeft(t testing.TB, before goleak.Option) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := goleak.Find(before)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// warm waits until every worker has written.
func warm(t testing.TB, r *rig) {
	t.Helper()
	r.recover(t.Context(), &fault{name: "warm-up", within: 30 * time.Second})
}

// finish checks that a load failed only as its faults allow, that all committed
// rows exist, and that no session is left.
func finish(t testing.TB, r *rig, adminDSN string) {
	t.Helper()
	r.close()
	violations, n := r.checker.verdict()
	if n > 0 {
		t.Errorf("%d unexplained failures:\n%s", n, strings.Join(violations, "\n"))
	}
	c, err := r.ledger.audit(t.Context(), adminDSN)
	if err != nil || c.lost > 0 || c.committed == 0 {
		t.Errorf("%d rows committed, %d found, %d lost; error %v", c.committed, c.found, c.lost, err)
	}
	if err := r.noSessions(t.Context(), adminDSN); err != nil {
		t.Error(err)
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // also what finalizers and cleanups release
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
