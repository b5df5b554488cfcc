package entrapg_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
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
		{name: "a host that is no name", dsn: "host=db.example.com", setting: "host", change: func(c *pgx.ConnConfig) { c.Host = "db.example.com.." }},
		{name: "an unusable field", dsn: "host=db.example.com", setting: "WithConnConfig", change: func(c *pgx.ConnConfig) { c.BuildFrontend = nil }},
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
	for _, pool := range []*pgxpool.Config{nil, {}, {ConnConfig: parse(t, "")}, {ConnConfig: parse(t, ""), MaxConns: 1}} {
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

func TestNone_ExistingPasswordIsUsed(t *testing.T) {
	localRole(t, "existing", "correct horse")
	dsn := server().DSN() + "&user=existing&entra_credential=none"
	for name, set := range map[string]func(*pgxpool.Config){
		"set": func(c *pgxpool.Config) { c.ConnConfig.Password = "correct horse" },
		"set by a hook": func(c *pgxpool.Config) {
			c.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { c.Password = "correct horse"; return nil }
		},
	} {
		config := parsePool(t, dsn)
		set(config)
		if config.ConnConfig.Password != "" {
			connector := entrapg.NewConnectorWithConfig(config.ConnConfig)
			defer connector.Close()
			mustConnect(t, connector)
			if user, password, err := connector.Credentials(t.Context()); user != "existing" ||
				password != "correct horse" || err != nil {
				t.Errorf("Credentials: %q, %q, %v", user, password, err)
			}
		}
		if err := entrapg.ConfigurePool(config); err != nil {
			t.Fatal(err)
		}
		if err := newPool(t, config).Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
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

func TestConnector_CredentialsAreThoseOfLogin(t *testing.T) {
	s := start(t, entrapgtest.Config{TokenLife: 2 * time.Second})
	p := app(t, s)
	connector := entrapg.NewConnector(s.DSN(), entrapg.WithCredential(p))
	last := ""
	for tokens := 0; tokens < 3; { // until two have expired
		user, token, err := connector.Credentials(t.Context())
		if err != nil || user != p.Name {
			t.Fatalf("user %q, error %v, want %q", user, err, p.Name)
		}
		if token != last {
			tokens++
			last = token
		}
		config := parse(t, s.DSN())
		config.User, config.Password = user, token
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close(t.Context())
		time.Sleep(100 * time.Millisecond)
	}
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

func TestTLS_ExistingStrictConfigurationStaysStrict(t *testing.T) {
	authority, foreign := newAuthority(), newAuthority()
	file := authority.file(t)
	for _, sslmode := range []string{"require", "verify-ca"} {
		for _, test := range []struct {
			name     string
			config   func(*tls.Config) *tls.Config
			identity tls.Certificate
			want     bool
		}{
			{"sslrootcert alone", nil, authority.issue(foreignName), true},
			{"a strict configuration", func(*tls.Config) *tls.Config {
				return &tls.Config{ServerName: contosoName, RootCAs: authority.pool()}
			}, authority.issue(foreignName), false},
			{"a strict configuration, its name", func(*tls.Config) *tls.Config {
				return &tls.Config{ServerName: contosoName, RootCAs: authority.pool()}
			}, authority.issue(contosoName), true},
			{"other roots", func(c *tls.Config) *tls.Config {
				c.RootCAs = foreign.pool()
				return c
			}, foreign.issue(foreignName), false},
			{"other roots, its name", func(c *tls.Config) *tls.Config {
				c.RootCAs = foreign.pool()
				return c
			}, foreign.issue(contosoName), true},
		} {
			config := parse(t, "host="+contosoName+" user=app sslmode="+sslmode+" sslrootcert="+quote(file))
			if test.config != nil {
				config.TLSConfig = test.config(config.TLSConfig)
			}
			s := &tlsServer{identity: test.identity}
			c := entrapg.NewConnectorWithConfig(config, s.options(), entrapg.WithCredential(&numbered{life: time.Hour}))
			if err := connect(t, c); (err == nil) != test.want {
				t.Errorf("%s, %s: got %v, want accepted %t", sslmode, test.name, err, test.want)
			}
			c.Close()
		}
	}
}
