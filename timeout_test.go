package entrapg_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg"
)

// silent routes connections to a server that takes them and says nothing.
func silent() entrapg.Option {
	return entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
		config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go io.Copy(io.Discard, server)
			return client, nil
		}
	})
}

func TestServerThatSaysNothingIsGivenUpAfterHalfAMinute(t *testing.T) {
	const tokenWait = 20 * time.Second // does not count
	for _, test := range []struct {
		dsn  string
		want time.Duration
	}{
		{bubbleDSN, 30 * time.Second},
		{bubbleDSN + " connect_timeout=5", 5 * time.Second},
		{"postgres://app@127.0.0.1/?sslmode=disable&connect_timeout=70", 70 * time.Second},
		{"host=127.0.0.1,127.0.0.2 user=app sslmode=disable", 60 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := entrapg.NewConnector(test.dsn, silent(), entrapg.WithCredential(&numbered{life: time.Hour, delay: tokenWait}))
			start := time.Now()
			_, err := c.Connect(context.Background())
			var connect *pgconn.ConnectError
			if took := time.Since(start) - tokenWait; took != test.want || !errors.As(err, &connect) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v after %v, want pgx's timeout after %v", test.dsn, err, took, test.want)
			}
		})
	}
}

func TestPgxpoolGivesASilentServerUpAfterHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, err := pgxpool.NewWithConfig(context.Background(), poolConfig(t, bubbleDSN, silent(), entrapg.WithCredential(&numbered{life: time.Hour})))
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

func TestConnectTimeoutIsWhatTheProgramSaysIfItSaysSo(t *testing.T) {
	service := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(service, []byte("[patient]\nconnect_timeout=120\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const host = "host=db.example.com "
	for _, test := range []struct {
		dsn, env string
		adjust   func(*pgx.ConnConfig)
		want     time.Duration
	}{
		{dsn: host, want: 30 * time.Second},
		{dsn: host + "connect_timeout=0", want: 0},
		{dsn: host, env: "45", want: 45 * time.Second},
		{dsn: host, env: "0", want: 0},
		{dsn: host + "connect_timeout=7", env: "45", want: 7 * time.Second},
		{dsn: host + "service=patient servicefile=" + quote(service), want: 2 * time.Minute},
		{dsn: host, adjust: func(c *pgx.ConnConfig) { c.ConnectTimeout = 0 }, want: 0},
	} {
		t.Run(test.dsn+" "+test.env, func(t *testing.T) {
			t.Setenv("PGCONNECT_TIMEOUT", test.env)
			if test.adjust == nil {
				test.adjust = func(*pgx.ConnConfig) {}
			}
			config := poolConfig(t, test.dsn, entrapg.WithCredential(&numbered{}), entrapg.WithConnConfig(test.adjust))
			if got := config.ConnConfig.ConnectTimeout; got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
