package engine_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestShutdown_WaitsForSessions(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	conn := p.connect(t, "")
	shut := make(chan error, 1)
	go func() { shut <- p.Shutdown(context.WithoutCancel(t.Context())) }()
	await(t, "the listener to close", func() bool {
		c, err := net.Dial("tcp", p.addr.String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	query(t, conn, "select 'still served'")
	select {
	case err := <-shut:
		t.Fatalf("Shutdown returned %v before the session ended", err)
	default:
	}
	conn.Close(t.Context())
	if err := <-shut; err != nil {
		t.Error(err)
	}
}

func TestShutdown_ClosesSessionsAtDeadline(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	idle, busy := p.connect(t, ""), p.connect(t, "")
	idleEnded, busyEnded := make(chan error, 1), make(chan error, 1)
	go func() { idleEnded <- idle.PgConn().WaitForNotification(context.WithoutCancel(t.Context())) }()
	go func() {
		_, err := busy.Exec(context.WithoutCancel(t.Context()), "select pg_sleep(600)")
		busyEnded <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-busyEnded; err == nil {
		t.Error("the busy session continued")
	}
	err := <-idleEnded
	if response, ok := asPgError(err); !ok || response.Code != "57P01" {
		t.Errorf("the idle session ends with %v, want 57P01", err)
	}
	if open := p.Stats().Open; open != 0 {
		t.Errorf("%d connections are open", open)
	}
}

func TestShutdown_EndsLoginInProgress(t *testing.T) {
	s := server(t)
	inject(t, s, entrapgtest.Faults{LoginDelay: time.Hour})
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	client := dialWire(t, "tcp", p.addr.String())
	client.startup("3.0", "user", "client", "database", "postgres")
	await(t, "the login", func() bool { return p.Upstream.Stats().TokenRequests > 0 })
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	if answer := client.next(); !strings.Contains(answer, "57P0") {
		t.Errorf("the client is answered %q", answer)
	}
	client.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestServer_FreesResourcesOfLostClients counts goroutines and descriptors before and
// after 1,000 clients that disconnect at all stages.
func TestServer_FreesResourcesOfLostClients(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), Password: password})
	q := start(t, &engine.Server{Upstream: p.Upstream})
	query(t, p.connect(t, ""), "select 1::text")
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	var clients sync.WaitGroup
	slots := make(chan struct{}, 50)
	for i := range 1000 {
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			stage := max(0, i%20-15) // most of them send nothing, because logins take long
			addr := p.addr
			if stage > 1 {
				addr = q.addr
			}
			conn, err := net.Dial("tcp", addr.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if i/20%2 == 0 {
				_ = conn.(*net.TCPConn).SetLinger(0) // with a reset
			}
			client := &wire{conn, t}
			switch stage {
			case 0: // nothing
			case 1: // after the request for the password
				client.startup("3.0", "user", "client")
				_, _ = conn.Read(make([]byte, 1))
			case 2: // during the login
				client.startup("3.0", "user", "client", "database", "postgres")
			case 3: // when the session begins
				client.startup("3.0", "user", "client", "database", "postgres")
				_, _ = conn.Read(make([]byte, 1))
			case 4: // in the middle of a result
				client.startup("3.0", "user", "client", "database", "postgres")
				_, _ = conn.Read(make([]byte, 1))
				_, _ = conn.Write([]byte("Q\x00\x00\x00\x2cselect repeat('x', 10000000)           \x00"))
				_, _ = conn.Read(make([]byte, 1000))
			}
		})
	}
	clients.Wait()
	await(t, "goroutines and descriptors to be as before", func() bool {
		return q.Stats().Open == 0 && p.Stats().Open == 1 && runtime.NumGoroutine() <= goroutines && openDescriptors(t) <= descriptors
	})
	query(t, q.connect(t, ""), "select 1::text")
}

// openDescriptors returns the number of open file descriptors, or 0 if it is unknown.
func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
