package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/entrapgtest"
)

const password = "the proxy's own"

// shared is the server of all tests.
var shared struct {
	sync.Once
	*entrapgtest.Server
	err error
}

func TestMain(m *testing.M) {
	if attack := os.Getenv(attackVariable); attack != "" {
		runAttackers(attack)
		return
	}
	code := m.Run()
	if shared.Server != nil {
		if err := shared.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// server returns the shared server.
func server(t *testing.T) *entrapgtest.Server {
	t.Helper()
	shared.Do(func() {
		shared.Server, shared.err = entrapgtest.Start(context.Background(), entrapgtest.Config{})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.Server
}

// inject injects faults into the server until the test ends.
func inject(t *testing.T, s *entrapgtest.Server, faults entrapgtest.Faults) {
	t.Helper()
	s.SetFaults(faults)
	t.Cleanup(func() { s.SetFaults(entrapgtest.Faults{}) })
}

// newIdentity returns a new identity with its own role.
func newIdentity(t *testing.T, s *entrapgtest.Server) *entrapgtest.Principal {
	t.Helper()
	app := s.Tenant.NewUserAssignedIdentity("app-" + strings.ToLower(t.Name()))
	app.Name = app.Name[:min(len(app.Name), 60)]
	if err := s.CreateRole(t.Context(), "", app); err != nil {
		t.Fatal(err)
	}
	return app
}

// admin runs statements as superuser.
func admin(t *testing.T, s *entrapgtest.Server, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// A running proxy.
type running struct {
	*engine.Server
	addr net.Addr
	log  *logRecorder
}

// start starts a proxy. Its Server may be incomplete.
func start(t *testing.T, p *engine.Server) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, p, l)
}

func startOn(t *testing.T, p *engine.Server, l net.Listener) *running {
	t.Helper()
	r := &running{Server: p, addr: l.Addr(), log: &logRecorder{}}
	p.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		p.Close()
		if err := <-served; !errors.Is(err, engine.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// to returns the upstream of a server for an identity.
func to(t *testing.T, s *entrapgtest.Server, app *entrapgtest.Principal) *engine.Upstream {
	t.Helper()
	return upstream(t, s.DSN(), entrapg.WithCredential(app), entrapg.WithLogger(nil))
}

func upstream(t *testing.T, dsn string, opts ...entrapg.Option) *engine.Upstream {
	t.Helper()
	u, err := engine.NewUpstream(dsn, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// dsn returns a DSN for clients of the proxy.
func (r *running) dsn(settings string) string {
	host, port, _ := net.SplitHostPort(r.addr.String())
	return fmt.Sprintf("host=%s port=%s user=client dbname=postgres password='%s' sslmode=disable %s",
		host, port, strings.ReplaceAll(password, "'", `\'`), settings)
}

func (r *running) connect(t *testing.T, settings string) *pgx.Conn {
	t.Helper()
	conn, err := r.tryConnect(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (r *running) tryConnect(t *testing.T, settings string) (*pgx.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.dsn(settings))
	if err == nil {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			conn.Close(ctx)
		})
	}
	return conn, err
}

// query returns a row's only column as text.
func query(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var value string
	if err := conn.QueryRow(ctx, sql, pgx.QueryExecModeExec).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// rejection connects and returns the error with which the proxy rejects it.
func (r *running) rejection(t *testing.T, settings string) *pgconn.PgError {
	t.Helper()
	conn, err := r.tryConnect(t, settings)
	if err == nil {
		t.Fatalf("logged in as %s", query(t, conn, "select current_user"))
	}
	response, ok := asPgError(err)
	if !ok {
		t.Fatalf("not an error of the server or the proxy: %v", err)
	}
	return response
}

func asPgError(err error) (*pgconn.PgError, bool) {
	for err != nil {
		if response, ok := err.(*pgconn.PgError); ok { //nolint:errorlint // the loop unwraps
			return response, true
		}
		switch e := err.(type) { //nolint:errorlint // the loop unwraps
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			err = e.Unwrap()[0]
		default:
			return nil, false
		}
	}
	return nil, false
}

// client returns a command that runs one of PostgreSQL's programs.
func (r *running) client(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") != "" && os.Getenv("ENTRAPG_POSTGRES_BIN") == "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=60")
	return cmd
}

// psql returns a command that runs psql through the proxy.
func (r *running) psql(t *testing.T, settings string, args ...string) *exec.Cmd {
	t.Helper()
	return r.client(t, "psql", append([]string{"-XAtq", r.dsn(settings)}, args...)...)
}

// await waits until a condition is met.
func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !met(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// A logRecorder records a log.
type logRecorder struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logRecorder) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logRecorder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
