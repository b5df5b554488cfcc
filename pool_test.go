package entrapg_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestPool_RejectedTokensAreReplacedEveryTime(t *testing.T) {
	credential := &numbered{life: 24 * time.Hour}
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		config, err := entrapg.PoolConfig(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		if err != nil {
			t.Fatal(err)
		}
		login := func() error {
			c := config.ConnConfig.Copy()
			if err := config.BeforeConnect(t.Context(), c); err != nil {
				return err
			}
			conn, err := pgx.ConnectConfig(t.Context(), c)
			if err == nil {
				conn.Close(t.Context())
			}
			return err
		}
		for range 10 { // each time, reject the current token and the next
			next := fmt.Sprintf("token-%d", credential.count()+1)
			s.setReject(rejectTokens(next, s.last()))
			for range 3 {
				if login() == nil {
					break
				}
			}
			if err := login(); err != nil {
				t.Fatalf("with %d tokens: %v", credential.count(), err)
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestPool_RejectedUserDoesNotExhaustTokensOfOthers(t *testing.T) {
	t.Parallel()
	credential := &numbered{life: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		bad := &pipeServer{reject: rejectEveryLogin}
		good := &pipeServer{}
		config, err := entrapg.PoolConfig(bubbleDSN, good.options(), entrapg.WithCredential(credential),
			entrapg.WithLogger(nil))
		if err != nil {
			t.Fatal(err)
		}
		login := func(user string, s *pipeServer) error {
			c := config.ConnConfig.Copy()
			c.User = user
			if err := config.BeforeConnect(t.Context(), c); err != nil {
				return err
			}
			c.DialFunc = s.dial
			conn, err := pgx.ConnectConfig(t.Context(), c)
			if err == nil {
				conn.Close(t.Context())
			}
			return err
		}
		for range 500 {
			if err := login("good", good); err != nil {
				t.Fatal(err)
			}
			if err := login("bad", bad); err == nil {
				t.Fatal("the rejected user's login succeeded")
			}
		}
		if n := credential.count(); n > 10 {
			t.Errorf("%d token requests for 500 connections, want at most 10", n)
		}
	})
}

func TestPool_SilentServerTimesOutAfter30Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, err := pgxpool.NewWithConfig(
			context.Background(),
			poolConfig(t, bubbleDSN, silent(), entrapg.WithCredential(&numbered{life: time.Hour})),
		)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		start := time.Now()
		if err := pool.Ping(context.Background()); err == nil || time.Since(start) != 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestPool_OutlivesManyTokens(t *testing.T) {
	t.Parallel()
	credential, reject := expiring(time.Hour)
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{reject: reject}
		config := poolConfig(t, bubbleDSN+" pool_max_conns=7 pool_max_conn_lifetime=2m pool_health_check_period=1m",
			s.options(), entrapg.WithCredential(credential))
		if config.MaxConns != 7 || config.MaxConnLifetime != 2*time.Minute {
			t.Errorf("pool settings: %d connections, lifetime %v; want 7 and 2m", config.MaxConns, config.MaxConnLifetime)
		}
		pool := newPool(t, config)
		var all sync.WaitGroup
		for range 7 {
			all.Go(func() {
				for end := time.Now().Add(12 * time.Hour); time.Now().Before(end); time.Sleep(time.Minute) {
					if err := pool.Ping(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		tokens := map[string]bool{}
		for _, token := range s.passwords() {
			tokens[token] = true
		}
		if n := len(tokens); n < 12 || n > 15 {
			t.Errorf("logins with %d tokens in 12 hours with tokens of one hour, want 12 to 15", n)
		}
	})
}

func TestPool_RejectedTokenIsReplacedAtNextConnect(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	pool := newPool(t, poolConfig(t, s.DSN(), entrapg.WithCredential(app(t, s))))
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeTokens(); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	err := pool.Ping(t.Context())
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "28000" {
		t.Fatalf("got %v, want the rejection", err)
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect); connect.Config.Password != "" {
		t.Error("the error contains the token")
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("next attempt: %v", err)
	}
}

func TestPool_HooksRun(t *testing.T) {
	config := poolConfig(t, server().DSN(), entrapg.WithCredential(app(t, server())))
	before := config.BeforeConnect
	var called []string
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		called = append(called, "before")
		return before(ctx, c)
	}
	config.AfterConnect = func(context.Context, *pgx.Conn) error {
		called = append(called, "after")
		return nil
	}
	if err := newPool(t, config).Ping(t.Context()); err != nil || len(called) != 2 {
		t.Errorf("hooks called: %v, error %v", called, err)
	}
}

func TestPool_BeforeConnectWorksForPlainPgx(t *testing.T) {
	config := poolConfig(t, server().DSN(), entrapg.WithCredential(app(t, server())))
	c := config.ConnConfig.Copy()
	if err := config.BeforeConnect(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPool_PoolConfigReportsInvalidSetting(t *testing.T) {
	var config *entrapg.ConfigError
	for setting, dsn := range map[string]string{
		"password":       "host=db.example.com password=hunter2",
		"sslmode":        "host=db.example.com sslmode=prefer",
		"pool_max_conns": "host=db.example.com pool_max_conns=many",
	} {
		if _, err := entrapg.PoolConfig(dsn); !errors.As(err, &config) || config.Setting != setting {
			t.Errorf("%s: got %v, want a ConfigError for %s", dsn, err, setting)
		}
	}
	_, err := entrapg.PoolConfig("host=db.example.com", entrapg.WithStdlib(stdlib.OptionResetSession(nil)))
	if !errors.As(err, &config) || config.Setting != "WithStdlib" {
		t.Errorf("WithStdlib: %v", err)
	}
}

func TestPool_DoesNotDialWithoutToken(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	p := app(t, s)
	s.SetFaults(entrapgtest.Faults{EntraDown: true})
	var token *entrapg.TokenError
	if err := newPool(t, poolConfig(t, s.DSN(), entrapg.WithCredential(p))).Ping(t.Context()); !errors.As(err, &token) {
		t.Errorf("got %v, want a TokenError", err)
	}
	if n := len(s.Logins()); n != 0 {
		t.Errorf("%d logins were attempted", n)
	}
}

func TestPool_TLSAndAuthRulesApplyToLaterChanges(t *testing.T) {
	for name, spoil := range map[string]func(*pgx.ConnConfig){
		"no TLS":               func(c *pgx.ConnConfig) { c.TLSConfig = nil },
		"a plaintext fallback": func(c *pgx.ConnConfig) { c.Fallbacks = []*pgconn.FallbackConfig{{Host: "db.example.com", Port: 5432}} },
		"another auth method":  func(c *pgx.ConnConfig) { c.RequireAuth = "md5" },
		"channel binding":      func(c *pgx.ConnConfig) { c.ChannelBinding = "require" },
		"another password":     func(c *pgx.ConnConfig) { c.Password = "hunter2" },
	} {
		s := &pipeServer{}
		config := poolConfig(t, "host=db.example.com user=app", s.options(),
			entrapg.WithCredential(&numbered{life: time.Hour}))
		spoil(config.ConnConfig)
		var configErr *entrapg.ConfigError
		if err := newPool(t, config).Ping(t.Context()); !errors.As(err, &configErr) || len(s.passwords()) > 0 {
			t.Errorf("%s: got %v, want a ConfigError", name, err)
		}
	}
	config := poolConfig(t, "host=db.example.com user=app", entrapg.WithCredential(&numbered{life: time.Hour}))
	config.ConnConfig.RequireAuth = "" // any
	config.ConnConfig.TLSConfig.InsecureSkipVerify = true
	c := config.ConnConfig.Copy()
	if err := config.BeforeConnect(t.Context(), c); err != nil || c.RequireAuth == "" || c.TLSConfig.InsecureSkipVerify {
		t.Errorf("the rules were not applied again: require_auth %q, error %v", c.RequireAuth, err)
	}
}

func TestPool_PasswordSetLaterIsConfigError(t *testing.T) {
	for _, dsn := range []string{
		"host=127.0.0.1 user=app sslmode=disable",
		"host=127.0.0.1 user=app sslmode=disable entra_credential=none password=p",
	} {
		s := &pipeServer{}
		config := poolConfig(t, dsn, s.options())
		config.ConnConfig.Password = "hunter2"
		var configErr *entrapg.ConfigError
		if err := newPool(t, config).Ping(t.Context()); !errors.As(err, &configErr) || len(s.passwords()) > 0 {
			t.Errorf("%s: got %v, want a ConfigError", dsn, err)
		}
	}
}

func TestPool_LogsInAsUserOfConfig(t *testing.T) {
	alice := server().Tenant.NewUser("alice.pool@contoso.example")
	createRole(t, server(), "", alice)
	createRole(t, server(), "other name of alice", alice)
	config := poolConfig(t, server().DSN(), entrapg.WithCredential(alice))
	other := config.Copy()
	other.ConnConfig.User = "other name of alice"
	for want, config := range map[string]*pgxpool.Config{alice.Name: config, "other name of alice": other} {
		var user string
		if err := newPool(t, config).QueryRow(t.Context(), "select session_user").Scan(&user); err != nil || user != want {
			t.Errorf("logged in as %q, error %v, want %q", user, err, want)
		}
	}
}
