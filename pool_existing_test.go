package entrapg_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestPool_ExistingBeforeConnectKeepsRunning(t *testing.T) {
	s := start(t, entrapgtest.Config{Hostnames: []string{azureName}})
	p := app(t, s)
	port, _ := strconv.Atoi(s.Addr()[strings.LastIndex(s.Addr(), ":")+1:])
	for _, test := range []struct{ host, problem string }{
		{azureName, ""},
		{"127.0.0.1", ""},
		{"elsewhere.example", "certificate is valid for"},
		{"elsewhere.example..", "not a host name"},
	} {
		config := parsePool(t, "host=db.example.com dbname=postgres")
		trust(t, s, config.ConnConfig)
		config.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
		calls := 0
		config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			calls++
			c.Host, c.Port, c.Password = test.host, uint16(port), "of the hook"
			return nil
		}
		if err := entrapg.ConfigurePool(config, entrapg.WithCredential(p)); err != nil {
			t.Fatal(err)
		}
		err := newPool(t, config.Copy()).Ping(t.Context())
		if calls != 1 || test.problem == "" && err != nil ||
			test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)) {
			t.Errorf("%s: %d calls, error %v, want %q", test.host, calls, err, test.problem)
		}
	}
}

func TestPool_ConfigurationUsedWithoutPoolIsConfigError(t *testing.T) {
	p := app(t, server())
	existing := parsePool(t, server().DSN())
	if err := entrapg.ConfigurePool(existing, entrapg.WithCredential(p)); err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*pgxpool.Config{
		"PoolConfig":    poolConfig(t, server().DSN(), entrapg.WithCredential(p)),
		"with a user":   poolConfig(t, server().DSN()+"&user="+p.Name, entrapg.WithCredential(p)),
		"ConfigurePool": existing,
	} {
		pool := newPool(t, config)
		var invalid *entrapg.ConfigError
		if _, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig); !errors.As(err, &invalid) ||
			!strings.Contains(err.Error(), "OpenDBFromPool") {
			t.Errorf("%s: pgx: got %v", name, err)
		}
		for what, db := range map[string]*sql.DB{
			"stdlib.OpenDB":  stdlib.OpenDB(*pool.Config().ConnConfig),
			"OpenDBFromPool": stdlib.OpenDBFromPool(pool),
		} {
			err := db.PingContext(t.Context())
			if works := what == "OpenDBFromPool"; works && err != nil ||
				!works && (!errors.As(err, &invalid) || !strings.Contains(err.Error(), "OpenDBFromPool")) {
				t.Errorf("%s: %s: got %v", name, what, err)
			}
			db.Close()
		}
	}
}

// bubbleHost is bubbleDSN without a user.
const bubbleHost = "host=127.0.0.1 sslmode=disable"

func TestPool_HookCannotMoveTokenToAnotherCloud(t *testing.T) {
	const china = "shop.postgres.database.chinacloudapi.cn"
	s := start(t, entrapgtest.Config{Hostnames: []string{azureName, china}})
	p := app(t, s)
	_, port, _ := net.SplitHostPort(s.Addr())
	n, _ := strconv.Atoi(port)
	for _, test := range []struct {
		more string
		ok   bool
	}{{"", false}, {" entra_scope=" + databaseScope, true}} {
		config := parsePool(t, "host="+azureName+" dbname=postgres sslrootcert="+quote(s.CAFile())+test.more)
		config.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
		config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			c.Host, c.Port = china, uint16(n)
			return nil
		}
		if err := entrapg.ConfigurePool(config, entrapg.WithCredential(p)); err != nil {
			t.Fatal(err)
		}
		attempts := len(s.Logins())
		err := newPool(t, config).Ping(t.Context())
		var invalid *entrapg.ConfigError
		if test.ok && err != nil ||
			!test.ok && (!errors.As(err, &invalid) || invalid.Setting != "host" || len(s.Logins()) != attempts) {
			t.Errorf("%q: got %v", test.more, err)
		}
	}
}

func TestPool_SecondConfigurePoolIsConfigError(t *testing.T) {
	s := &pipeServer{}
	configured := parsePool(t, bubbleDSN)
	if err := entrapg.ConfigurePool(configured, s.options(), entrapg.WithCredential(alice)); err != nil {
		t.Fatal(err)
	}
	var invalid *entrapg.ConfigError
	for _, config := range []*pgxpool.Config{configured, configured.Copy(), poolConfig(t, bubbleDSN)} {
		if err := entrapg.ConfigurePool(config, entrapg.WithCredential(alice)); !errors.As(err, &invalid) {
			t.Errorf("got %v, want a ConfigError", err)
		}
	}
	configured.BeforeConnect = nil
	if _, err := newPool(t, configured).Acquire(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "BeforeConnect") {
		t.Errorf("without the hook: got %v, want an error that names it", err)
	}
}

func TestPool_UnknownPoolSettingIsReported(t *testing.T) {
	var invalid *entrapg.ConfigError
	if _, err := entrapg.PoolConfig(bubbleDSN + " pool_max_con=3"); !errors.As(err, &invalid) ||
		invalid.Setting != "pool_max_con" {
		t.Errorf("PoolConfig: got %v", err)
	}
	if err := entrapg.ConfigurePool(parsePool(t, bubbleDSN+" pool_max_con=3")); !errors.As(err, &invalid) ||
		invalid.Setting != "pool_max_con" {
		t.Errorf("ConfigurePool: got %v", err)
	}
}
