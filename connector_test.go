package entrapg_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestConnector_HookErrorIsNotRejectedLogin(t *testing.T) {
	credential := &numbered{life: time.Hour}
	s := &pipeServer{}
	broken := &pgconn.PgError{Severity: "ERROR", Code: "28000", Message: "of the hook"}
	c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithStdlib(
		stdlib.OptionAfterConnect(func(context.Context, *pgx.Conn) error { return broken })))
	for range 3 {
		err := connect(t, c)
		var login *entrapg.LoginError
		if !errors.Is(err, broken) || errors.As(err, &login) {
			t.Errorf("got %v, want the hook's error and no LoginError", err)
		}
	}
	if stats := c.Stats(); credential.count() != 1 || stats.LoginsRejected != 0 || stats.LoginRetries != 0 {
		t.Errorf("%d token requests; Stats: %+v", credential.count(), stats)
	}
}

func TestConnector_LogsInAsIdentityOfCredential(t *testing.T) {
	p := app(t, server())
	db, c := open(t, server().DSN(), entrapg.WithCredential(p))
	if user := sessionUser(t, db); user != p.Name {
		t.Errorf("logged in as %q, want %q", user, p.Name)
	}
	stats := c.Stats()
	if stats.Logins != 1 || stats.LoginsRejected != 0 || stats.User != p.Name ||
		time.Until(stats.TokenExpiry) < 50*time.Minute {
		t.Errorf("Stats: %+v", stats)
	}
}

func TestConnector_ReturnsStdlibConn(t *testing.T) {
	db, c := open(t, server().DSN(), entrapg.WithCredential(app(t, server())))
	if _, ok := c.Driver().(*stdlib.Driver); !ok {
		t.Errorf("Driver is a %T", c.Driver())
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Raw(func(driverConn any) error {
		var one int
		return driverConn.(*stdlib.Conn).Conn().QueryRow(t.Context(), "select 1").Scan(&one)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestConnector_OpenConnectionOutlivesToken(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	s.SetFaults(entrapgtest.Faults{TokenLife: 12 * time.Second}) // long enough to log in, on a slow machine too
	db, c := open(t, s.DSN(), entrapg.WithCredential(app(t, s)))
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.SetFaults(entrapgtest.Faults{})
	expires := c.Stats().TokenExpiry
	for time.Now().Before(expires.Add(100 * time.Millisecond)) {
		if err := conn.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := conn.PingContext(t.Context()); err != nil {
		t.Errorf("after its token expired: %v", err)
	}
	// A new connection uses a new token.
	other, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if !c.Stats().TokenExpiry.After(expires) {
		t.Error("the second connection used the expired token")
	}
}

func TestConnector_OutlivesManyTokens(t *testing.T) {
	t.Parallel()
	credential, reject := expiring(time.Hour)
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{reject: reject}
		db, c := open(t, bubbleDSN, s.options(), entrapg.WithCredential(credential))
		db.SetMaxIdleConns(0) // every query logs in
		for end := time.Now().Add(24 * time.Hour); time.Now().Before(end); time.Sleep(time.Minute) {
			if err := db.PingContext(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if stats := c.Stats(); stats.TokenRequests < 24 || stats.TokenRequests > 30 || stats.LoginsRejected > 0 {
			t.Errorf("after 24 hours with tokens of one hour: %+v", stats)
		}
	})
}

func TestConnector_SecondHostIsUsedIfFirstIsDown(t *testing.T) {
	dsn := strings.Replace(server().DSN(), "postgres://", "postgres://"+closedPort+",", 1)
	db, c := open(t, dsn, entrapg.WithCredential(app(t, server())))
	sessionUser(t, db)
	if n := c.Stats().Logins; n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestConnector_StdlibHooksRun(t *testing.T) {
	var after, reset int
	db, _ := open(t, server().DSN(), entrapg.WithCredential(app(t, server())), entrapg.WithStdlib(
		stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
			after++
			_, err := conn.Exec(ctx, "set application_name = 'hooked'")
			return err
		}),
		stdlib.OptionResetSession(func(context.Context, *pgx.Conn) error { reset++; return nil }),
	))
	var name string
	for range 2 {
		if err := db.QueryRowContext(t.Context(), "show application_name").Scan(&name); err != nil {
			t.Fatal(err)
		}
	}
	if name != "hooked" || after != 1 || reset != 1 {
		t.Errorf("application_name %q, AfterConnect ran %d times, ResetSession %d", name, after, reset)
	}
}

func TestConnector_ConnectionIsClosedIfHookFails(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	p := app(t, s)
	broken := errors.New("hook failed")
	db, _ := open(t, s.DSN(), entrapg.WithCredential(p), entrapg.WithStdlib(
		stdlib.OptionAfterConnect(func(context.Context, *pgx.Conn) error { return broken }),
	))
	for range 3 {
		if err := db.PingContext(t.Context()); !errors.Is(err, broken) {
			t.Fatalf("got %v, want the hook's error", err)
		}
	}
	admin, err := pgx.Connect(t.Context(), s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	sessions := -1
	for end := time.Now().Add(time.Minute); sessions != 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := admin.QueryRow(t.Context(), "select count(*) from pg_stat_activity where usename = $1",
			p.Name).Scan(&sessions); err != nil {
			t.Fatal(err)
		}
	}
	if sessions != 0 {
		t.Errorf("%d sessions are still open", sessions)
	}
}

func TestConnector_ConfigHooksRun(t *testing.T) {
	var calls []string
	db, _ := open(t, server().DSN(), entrapg.WithCredential(app(t, server())),
		entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
			if config.User != "" || config.Password != "" {
				t.Errorf("the configuration has user %q or a password", config.User)
			}
			config.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
				calls = append(calls, "net")
				return conn, nil
			}
			config.AfterConnect = func(_ context.Context, conn *pgconn.PgConn) error {
				calls = append(calls, "connect")
				return nil
			}
		}))
	sessionUser(t, db)
	if got := strings.Join(calls, " "); got != "net connect" {
		t.Errorf("hooks called: %s", got)
	}
}

func TestConnector_IsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	c := entrapg.NewConnector(server().DSN(), entrapg.WithCredential(app(t, server())))
	defer c.Close()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				conn, err := c.Connect(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if err := conn.(driver.Pinger).Ping(t.Context()); err != nil {
					t.Error(err)
				}
				c.Stats()
				conn.Close()
			}
		})
	}
	all.Wait()
}

func TestConnector_CredentialsAreThoseOfLogin(t *testing.T) {
	p := app(t, server())
	connector := entrapg.NewConnector(server().DSN(), entrapg.WithCredential(p))
	user, token, err := connector.Credentials(t.Context())
	if err != nil || user != p.Name {
		t.Fatalf("user %q, error %v, want %q", user, err, p.Name)
	}
	config := parse(t, server().DSN())
	config.User, config.Password = user, token
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())
	connector.Close()
	if _, _, err := connector.Credentials(t.Context()); !errors.Is(err, entrapg.ErrClosed) {
		t.Errorf("after Close: got %v, want ErrClosed", err)
	}
	var invalid *entrapg.ConfigError
	for _, dsn := range []string{
		"host=db.example.com sslmode=disable", "host=db.example.com sslmode=prefer",
		"host=db.example.com password=p",
	} {
		if user, token, err := entrapg.NewConnector(dsn,
			entrapg.WithCredential(p)).Credentials(t.Context()); !errors.As(err, &invalid) ||
			user != "" ||
			token != "" {
			t.Errorf("%s: got %q, a token of %d bytes, %v", dsn, user, len(token), err)
		}
	}
	failed := errors.New("failed")
	var tokenErr *entrapg.TokenError
	broken := entrapg.NewConnector(
		bubbleDSN,
		entrapg.WithCredential(credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
			return azcore.AccessToken{}, failed
		})),
	)
	if _, _, err := broken.Credentials(t.Context()); !errors.As(err, &tokenErr) || !errors.Is(err, failed) {
		t.Errorf("got %v, want a TokenError", err)
	}
}

func TestConnector_CredentialsHaveNotExpired(t *testing.T) {
	credential, reject := expiring(time.Hour)
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		s.setReject(reject)
		config := parse(t, bubbleDSN)
		config.DialFunc = s.dial
		tokens := map[string]bool{}
		for end := time.Now().Add(12 * time.Hour); time.Now().Before(end); time.Sleep(time.Minute) {
			user, token, err := c.Credentials(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tokens[token] = true
			config.User, config.Password = user, token
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close(t.Context())
		}
		if n := len(tokens); n < 12 || n > 15 {
			t.Errorf("%d tokens in 12 hours, want 12 to 15", n)
		}
	})
}
