package entrapg_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func parse(t *testing.T, dsn string) *pgx.ConnConfig {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func parsePool(t *testing.T, dsn string) *pgxpool.Config {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// alice is a credential whose tokens name a user.
var alice = credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: jwt(c{"upn": "alice@contoso.example"}), ExpiresOn: time.Now().Add(time.Hour)}, nil
})

func TestConfig_ExistingUserIsUsedOnlyIfItWasSet(t *testing.T) {
	system, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	service := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(service, []byte("[shop]\nuser=of-service\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const host = "host=127.0.0.1 sslmode=disable "
	for _, test := range []struct {
		dsn, env, set, want string
	}{
		{dsn: host, want: "alice@contoso.example"}, // and not the operating system's
		{dsn: host + "user=app", want: "app"},
		{dsn: "postgres://app@127.0.0.1/?sslmode=disable", want: "app"},
		{dsn: host + "user=" + system.Username, want: system.Username},
		{dsn: host, env: "of-environment", want: "of-environment"},
		{dsn: host + "service=shop servicefile=" + quote(service), want: "of-service"},
		{dsn: host, set: "changed", want: "changed"},
		{dsn: host + "user=app", set: "changed", want: "changed"},
		{dsn: host, env: "of-environment", set: "changed", want: "changed"},
	} {
		t.Run(test.dsn+test.env+test.set, func(t *testing.T) {
			t.Setenv("PGUSER", test.env)
			config := parse(t, test.dsn)
			pool := parsePool(t, test.dsn)
			if test.set != "" {
				config.User, pool.ConnConfig.User = test.set, test.set
			}
			connector := entrapg.NewConnectorWithConfig(config, entrapg.WithCredential(alice))
			defer connector.Close()
			if got, _, err := connector.Credentials(t.Context()); got != test.want || err != nil {
				t.Errorf("user %q, error %v, want %q", got, err, test.want)
			}
			if err := entrapg.ConfigurePool(pool, entrapg.WithCredential(alice)); err != nil {
				t.Fatal(err)
			}
			copied := pool.ConnConfig.Copy()
			if err := pool.BeforeConnect(t.Context(), copied); err != nil || copied.User != test.want {
				t.Errorf("ConfigurePool: user %q, error %v, want %q", copied.User, err, test.want)
			}
		})
	}
}

func TestConfig_ExistingPasswordIsDropped(t *testing.T) {
	passfile := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(passfile, []byte("*:*:*:*:hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(*testing.T, *pgx.ConnConfig){
		"PGPASSWORD": func(t *testing.T, c *pgx.ConnConfig) { t.Setenv("PGPASSWORD", "hunter2"); *c = *parse(t, bubbleDSN) },
		"passfile":   func(t *testing.T, c *pgx.ConnConfig) { t.Setenv("PGPASSFILE", passfile); *c = *parse(t, bubbleDSN) },
		"set":        func(_ *testing.T, c *pgx.ConnConfig) { c.Password = "hunter2" },
	} {
		t.Run(name, func(t *testing.T) {
			s := &pipeServer{}
			config := parse(t, bubbleDSN)
			prepare(t, config)
			if config.Password != "hunter2" {
				t.Fatal("the configuration has no password")
			}
			credential := &numbered{life: time.Hour}
			connector := entrapg.NewConnectorWithConfig(config, s.options(), entrapg.WithCredential(credential))
			defer connector.Close()
			mustConnect(t, connector)
			pool := parsePool(t, bubbleDSN)
			pool.ConnConfig = config
			if err := entrapg.ConfigurePool(pool, s.options(), entrapg.WithCredential(credential)); err != nil {
				t.Fatal(err)
			}
			pooled, err := newPool(t, pool).Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			pooled.Release()
			if got := strings.Join(s.passwords(), " "); got != "token-1 token-1" {
				t.Errorf("the server got %q", got)
			}
			if config.Password != "hunter2" {
				t.Error("the given configuration was changed")
			}
		})
	}
}

func TestConfig_ExistingSettingThatIsUnsafeIsReported(t *testing.T) {
	for _, test := range []struct {
		name, dsn, env, setting string
		change                  func(*pgx.ConnConfig)
	}{
		{name: "a password", dsn: "host=db.example.com password=hunter2", setting: "password"},
		{name: "a password in a URL", dsn: "postgres://app:hunter2@db.example.com/", setting: "password"},
		{name: "prefer", dsn: "host=db.example.com sslmode=prefer", setting: "sslmode"},
		{name: "allow", dsn: "host=db.example.com sslmode=allow", setting: "sslmode"},
		{name: "prefer from the environment", dsn: "host=db.example.com", env: "prefer", setting: "sslmode"},
		{name: "disable", dsn: "host=db.example.com sslmode=disable", setting: "sslmode"},
		{name: "an unknown key", dsn: "host=db.example.com entra_x=1", setting: "entra_x"},
		{name: "no TLS by code", dsn: "host=db.example.com", setting: "sslmode", change: func(c *pgx.ConnConfig) { c.TLSConfig = nil }},
		{name: "a plaintext fallback by code", dsn: "host=db.example.com", setting: "sslmode", change: func(c *pgx.ConnConfig) {
			c.Fallbacks = append(c.Fallbacks, &pgconn.FallbackConfig{Host: "other.example.com", Port: 5432})
		}},
		{
			name: "a host that is no name", dsn: "host=db.example.com", setting: "host",
			change: func(c *pgx.ConnConfig) { c.Host = "db.example.com.." },
		},
		{
			name: "an unusable field", dsn: "host=db.example.com", setting: "WithConnConfig",
			change: func(c *pgx.ConnConfig) { c.BuildFrontend = nil },
		},
		{name: "no parser", setting: "config", change: func(c *pgx.ConnConfig) { *c = pgx.ConnConfig{} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("PGSSLMODE", test.env)
			config, pool := parse(t, test.dsn), parsePool(t, test.dsn)
			if test.change != nil {
				test.change(config)
				test.change(pool.ConnConfig)
			}
			credential := &numbered{life: time.Hour}
			dialed := false
			network := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
				c.DialFunc = func(context.Context, string, string) (net.Conn, error) { dialed = true; return nil, net.ErrClosed }
			})
			var invalid *entrapg.ConfigError
			err := connect(t, entrapg.NewConnectorWithConfig(config, network, entrapg.WithCredential(credential)))
			if !errors.As(err, &invalid) || invalid.Setting != test.setting || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want a ConfigError for %s", err, test.setting)
			}
			before := *pool
			err = entrapg.ConfigurePool(pool, network, entrapg.WithCredential(credential))
			if !errors.As(err, &invalid) || invalid.Setting != test.setting || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("ConfigurePool: got %v, want a ConfigError for %s", err, test.setting)
			}
			if pool.ConnConfig != before.ConnConfig || pool.BeforeConnect != nil {
				t.Error("ConfigurePool has changed the configuration")
			}
			if dialed || credential.count() > 0 {
				t.Errorf("dialed %t, %d token requests", dialed, credential.count())
			}
		})
	}
	var invalid *entrapg.ConfigError
	if err := connect(t, entrapg.NewConnectorWithConfig(nil)); !errors.As(err, &invalid) {
		t.Errorf("nil: got %v, want a ConfigError", err)
	}
	parsed := parse(t, "host=db.example.com")
	for _, pool := range []*pgxpool.Config{nil, {}, {ConnConfig: parsed}, {ConnConfig: parsed, MaxConns: 1}} {
		if err := entrapg.ConfigurePool(pool); !errors.As(err, &invalid) {
			t.Errorf("ConfigurePool(%v): got %v, want a ConfigError", pool, err)
		}
	}
	if err := connect(t,
		entrapg.NewConnectorWithConfig(parse(t, "host=db.example.com pool_max_conns=3"))); !errors.As(err, &invalid) ||
		invalid.Setting != "pool_max_conns" {
		t.Errorf("got %v, want a ConfigError for pool_max_conns", err)
	}
}

// trust adds a server's authority to the roots of a parsed configuration. It does not change
// the other settings of pgx's default, sslmode=prefer.
func trust(t *testing.T, s *entrapgtest.Server, config *pgx.ConnConfig) {
	t.Helper()
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config.TLSConfig.RootCAs = roots
	if !config.TLSConfig.InsecureSkipVerify || len(config.Fallbacks) != 1 || config.Fallbacks[0].TLSConfig != nil {
		t.Fatal("pgx's default is no longer sslmode=prefer")
	}
}

func TestConfig_ExistingDefaultOfPreferIsVerified(t *testing.T) {
	s := start(t, entrapgtest.Config{Hostnames: []string{azureName}})
	p := app(t, s)
	host, port, _ := net.SplitHostPort(s.Addr())
	dsn := "host=" + host + " port=" + port + " dbname=postgres"

	log := func(config *pgx.ConnConfig) error {
		connector := entrapg.NewConnectorWithConfig(config, entrapg.WithCredential(p))
		defer connector.Close()
		pool := parsePool(t, dsn)
		pool.ConnConfig = config
		if err := entrapg.ConfigurePool(pool, entrapg.WithCredential(p)); err != nil {
			t.Fatal(err)
		}
		err := connect(t, connector)
		if poolErr := newPool(t, pool).Ping(t.Context()); (poolErr == nil) != (err == nil) {
			t.Errorf("ConfigurePool: %v, NewConnectorWithConfig: %v", poolErr, err)
		}
		return err
	}
	config := parse(t, dsn)
	trust(t, s, config)
	if err := log(config); err != nil {
		t.Errorf("a server that is verified: %v", err)
	}

	var unverified x509.UnknownAuthorityError
	if err := log(parse(t, dsn)); !errors.As(err, &unverified) {
		t.Errorf("a server that the system's roots do not verify: got %v", err)
	}

	attempts := len(s.Logins())
	s.SetFaults(entrapgtest.Faults{NoTLS: true})
	if err := log(config); err == nil || len(s.Logins()) != attempts {
		t.Errorf("a server without TLS: error %v, %d plaintext logins", err, len(s.Logins())-attempts)
	}
	s.SetFaults(entrapgtest.Faults{})

	// The new host is verified by its own name, and not by that of the old one.
	for name, ok := range map[string]bool{azureName: true, "elsewhere.example": false} {
		config := parse(t, dsn)
		trust(t, s, config)
		config.Host = name
		config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{s.Addr()}, nil }
		var mismatch x509.HostnameError
		if err := log(config); ok && err != nil || !ok && !errors.As(err, &mismatch) {
			t.Errorf("host changed to %s: %v", name, err)
		}
	}
}

func TestConfig_ExistingIsCopied(t *testing.T) {
	s := &pipeServer{}
	config := parse(t, bubbleDSN+" entra_scope=api://x/.default application_name=shop")
	connector := entrapg.NewConnectorWithConfig(config, s.options(), entrapg.WithCredential(&numbered{life: time.Hour}))
	defer connector.Close()
	if config.RuntimeParams["entra_scope"] == "" || config.User != "app" || config.ConnectTimeout != 0 {
		t.Error("the given configuration was changed")
	}
	config.Host, config.User, config.RuntimeParams["application_name"] = "elsewhere.example", "other", "changed"
	conn, err := connector.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := conn.(*stdlib.Conn).Conn().Config()
	if _, sent := got.RuntimeParams["entra_scope"]; got.Host != "127.0.0.1" || got.User != "app" ||
		got.RuntimeParams["application_name"] != "shop" ||
		sent {
		t.Errorf("connected with host %s, user %s and %v", got.Host, got.User, got.RuntimeParams)
	}
}

func TestConfig_ExistingDefaultUserIsDroppedThoughPGUSERChanges(t *testing.T) {
	for _, test := range []struct{ before, after, want string }{
		{"", "later", "alice@contoso.example"},
		{"first", "", "first"},
		{"first", "later", "first"},
	} {
		t.Run(test.before+" to "+test.after, func(t *testing.T) {
			t.Setenv("PGUSER", test.before)
			config := parse(t, bubbleHost)
			t.Setenv("PGUSER", test.after)
			connector := entrapg.NewConnectorWithConfig(config, entrapg.WithCredential(alice))
			defer connector.Close()
			if got, _, err := connector.Credentials(t.Context()); got != test.want || err != nil {
				t.Errorf("user %q, error %v, want %q", got, err, test.want)
			}
		})
	}
}

// The rules for a DSN apply to a configuration that the program has parsed, too.
func TestConfig_ExistingConfigurationFollowsSameRules(t *testing.T) {
	clearSettings(t)
	adopted := func(dsn string) (*pgx.ConnConfig, error) {
		pool, err := pgxpool.ParseConfig(dsn)
		if err != nil {
			return nil, err
		}
		pool.ConnConfig.TLSConfig.MinVersion = tls.VersionTLS13
		err = entrapg.ConfigurePool(pool, entrapg.WithCredential(&numbered{}))
		return pool.ConnConfig, err
	}
	for _, test := range []struct{ dsn, setting, want string }{
		{"host=db.example.com gssencmode=require", "gssencmode", "omit it"},
		{"host=db.example.com keepalives=0", "keepalives", "DialFunc"},
		{"host=db.example.com hostaddr=192.0.2.1,192.0.2.2", "hostaddr", "an address for each"},
		{"host=db.example.com username=u", "username", "use user"},
		{"postgres://db.example.com/shop\n", "dsn", "white space"},
		{"postgres://alice@contoso.com@db.example.com/shop", "dsn", "%40"},
	} {
		_, err := adopted(test.dsn)
		var config *entrapg.ConfigError
		if !errors.As(err, &config) || config.Setting != test.setting || !strings.Contains(config.Problem, test.want) {
			t.Errorf("%q: got %v, want %s: %s", test.dsn, err, test.setting, test.want)
		}
	}
	config, err := adopted(
		"host=db.example.com hostaddr=192.0.2.1 keepalives=1 ssl_max_protocol_version=TLSv1.3 fallback_application_name=shop",
	)
	if err != nil {
		t.Fatal(err)
	}
	if addrs, err := config.LookupFunc(t.Context(), "db.example.com"); err != nil ||
		!slices.Equal(addrs, []string{"192.0.2.1"}) {
		t.Errorf("looked up %v, %v", addrs, err)
	}
	if len(config.RuntimeParams) != 1 || config.RuntimeParams["application_name"] != "shop" {
		t.Errorf("sends %v", config.RuntimeParams)
	}
	if config.TLSConfig.MinVersion != tls.VersionTLS13 {
		t.Error("the program's MinVersion is lost")
	}
	t.Setenv("PGSSLMODE", "prefer")
	if _, err := adopted("host=db.example.com"); err == nil || !strings.Contains(err.Error(), "sslmode (PGSSLMODE): ") {
		t.Errorf("got %v", err)
	}
}
