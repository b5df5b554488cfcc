package entrapg_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/entrapg/entrapg"
)

// clearSettings unsets the variables that name a host.
func clearSettings(t *testing.T) {
	for _, name := range []string{"PGHOST", "PGSERVICE", "PGSSLMODE", "PGUSER"} {
		t.Setenv(name, "")
	}
}

func TestConfig_ErrorNamesOriginOfSetting(t *testing.T) {
	dir := t.TempDir()
	services, text := filepath.Join(dir, "services"), filepath.Join(dir, "text")
	for path, content := range map[string]string{
		services: "[prod]\nsslmode=prefer\n[kind]\nentra_credential=kerberos\n[port]\nport=none\n[key]\ngssencmode=require\n" +
			"[client]\nentra_credential=managedidentity\nentra_client_id=shop-api\n",
		text: "no certificate",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const host = "host=db.example.com"
	for _, test := range []struct {
		dsn, variable, value string
		setting, origin      string
		want                 string
	}{
		{host, "PGSSLMODE", "prefer", "sslmode", "PGSSLMODE", "plaintext"},
		{host, "PGSSLMODE", "disable", "sslmode", "PGSSLMODE", "plaintext"},
		{host, "PGSSLMODE", "verify_full", "sslmode", "PGSSLMODE", `"verify_full"; use verify-full`},
		{host, "PGSSLROOTCERT", "/nowhere/ca.pem", "sslrootcert", "PGSSLROOTCERT", "/nowhere/ca.pem"},
		{host, "PGSSLROOTCERT", text, "sslrootcert", "PGSSLROOTCERT", text},
		{host, "PGSSLCERT", text, "sslcert", "PGSSLCERT", text},
		{host, "PGSSLCERTMODE", "perhaps", "sslcertmode", "PGSSLCERTMODE", "perhaps"},
		{host, "PGPORT", "none", "port", "PGPORT", "port"},
		{host, "PGCONNECT_TIMEOUT", "1s", "connect_timeout", "PGCONNECT_TIMEOUT", `"1s"`},
		{host, "PGTARGETSESSIONATTRS", "writable", "target_session_attrs", "PGTARGETSESSIONATTRS", "writable"},
		{host, "PGCHANNELBINDING", "require", "channel_binding", "PGCHANNELBINDING", "omit"},
		{host, "PGREQUIREAUTH", "md5", "require_auth", "PGREQUIREAUTH", "password"},
		{host, "PGREQUIREAUTH", "magic", "require_auth", "PGREQUIREAUTH", `"magic"`},
		{host, "PGMINPROTOCOLVERSION", "4", "min_protocol_version", "PGMINPROTOCOLVERSION", `"4"`},
		{host, "PGSERVICE", "lost", "service", "PGSERVICE", services},
		{"user=app", "PGHOST", "a b", "host", "PGHOST", `"a b"`},
		{"", "PGHOST", azureName + ",x.postgres.database.chinacloudapi.cn", "host", "PGHOST", "different Azure clouds"},
		{host, "PGSERVICE", "prod", "sslmode", "service prod in " + services, "plaintext"},
		{host, "PGSERVICE", "kind", "entra_credential", "service kind in " + services, "kerberos"},
		{host, "PGSERVICE", "port", "port", "service port in " + services, "port"},
		{host, "PGSERVICE", "key", "gssencmode", "service key in " + services, "omit it"},
		{host, "PGSERVICE", "client", "entra_client_id", "service client in " + services, "GUID"},
		{host + " service=prod", "PGSSLMODE", "disable", "sslmode", "service prod in " + services, "plaintext"},
		{host + " sslmode=prefer", "PGSSLMODE", "require", "sslmode", "", "plaintext"},
	} {
		t.Run(test.variable+" "+test.value, func(t *testing.T) {
			clearSettings(t)
			file := services
			if test.value == "lost" {
				file = services + ".d"
				test.want = file
			}
			t.Setenv("PGSERVICEFILE", file)
			t.Setenv(test.variable, test.value)
			_, err := entrapg.PoolConfig(test.dsn)
			var config *entrapg.ConfigError
			if !errors.As(err, &config) {
				t.Fatalf("got %v, want a ConfigError", err)
			}
			if config.Setting != test.setting || config.Origin != test.origin || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q for setting %q of %q, want %q for %q of %q", err, config.Setting, config.Origin, test.want,
					test.setting, test.origin)
			}
			prefix := "entrapg: " + test.setting + ": "
			if test.origin != "" {
				prefix = "entrapg: " + test.setting + " (" + test.origin + "): "
			}
			if !strings.HasPrefix(err.Error(), prefix) {
				t.Errorf("got %q, want prefix %q", err, prefix)
			}
		})
	}
}

func TestConfig_ErrorNamesPGUSER(t *testing.T) {
	clearSettings(t)
	t.Setenv("PGUSER", strings.Repeat("x", 64))
	_, err := configOf(t, "host=db.example.com")
	var unnamed *entrapg.UsernameError
	if !errors.As(err, &unnamed) || !strings.Contains(err.Error(), "PGUSER") {
		t.Errorf("got %v", err)
	}
}

// If the program has replaced a value, the error must not name an environment variable.
func TestConfig_ErrorNamesNoOriginOfReplacedSetting(t *testing.T) {
	clearSettings(t)
	t.Setenv("PGHOST", "db.example.com")
	t.Setenv("PGUSER", "app")
	long := strings.Repeat("x", 64)
	for name, adjust := range map[string]func(*pgx.ConnConfig){
		"host": func(c *pgx.ConnConfig) { c.Host = "a b" },
		"user": func(c *pgx.ConnConfig) { c.User = long },
	} {
		_, err := entrapg.PoolConfig("", entrapg.WithConnConfig(adjust))
		if err == nil || strings.Contains(err.Error(), "PG"+strings.ToUpper(name)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestConfig_DSNThatPgxMisreadsIsConfigError(t *testing.T) {
	clearSettings(t)
	for _, test := range []struct{ dsn, setting, want string }{
		{"", "dsn", "set the variable that holds the DSN"},
		{" \n", "dsn", "set the variable that holds the DSN"},
		{"\ufeff", "dsn", "set the variable that holds the DSN"},
		{"user=app dbname=shop", "host", "no host is set"},
		{"postgres:///shop", "host", "no host is set"},
		{"Host=h;Port=5432;Username=u;Password=hunter2", "dsn", "ADO.NET"},
		{"host=h;port=5432;username=u;password=hunter2", "dsn", "ADO.NET"},
		{"host='h;password=hunter2'", "dsn", "ADO.NET"},
		{"User Id=u;Password=hunter2;Host=h", "dsn", "ADO.NET"},
		{"Data Source=h;Password=hunter2", "dsn", "ADO.NET"},
		{"Driver={PostgreSQL};Server=h;Pwd=hunter2", "dsn", "ODBC"},
		{"pgx5://u:hunter2@h/db", "dsn", "postgres:// URL"},
		{"postgresql+psycopg://u:hunter2@h/db?a=b", "dsn", "postgres:// URL"},
		{"Host=h", "Host", "lower case"},
		{"host=h Username=u", "Username", "use user"},
		{"host=h username=u", "username", "use user"},
		{"host=h ssl=true", "ssl", "sslmode"},
		{"postgres://alice@contoso.com@" + azureName + "/shop", "dsn", "alice%40contoso.com"},
		{"postgres://alice@contoso.com:hunter2@h/shop", "dsn", "%40"},
		{"postgres://a:hun@ter2@h/shop?entra_credential=none", "dsn", "%40"},
		{"postgres://app/slots/s@h/shop", "dsn", "%2F"},
		{`"postgres://app:hunter2@h/shop"`, "dsn", "quotation marks"},
		{"'host=h'\n", "dsn", "quotation marks"},
		{"host=h sslmode=verify_full", "sslmode", `"verify_full"; use verify-full`},
		{"postgres://h/?sslmode=Require", "sslmode", "disable, allow, prefer, require, verify-ca, verify-full"},
		{"host=h entra_credential=managedidentity entra_client_id=shop-api", "entra_client_id", `"shop-api" is not a client ID, which is a GUID`},
		{"host=h entra_tenant_id=contoso", "entra_tenant_id", "a GUID or a domain"},
	} {
		_, err := entrapg.PoolConfig(test.dsn)
		var config *entrapg.ConfigError
		switch {
		case runtime.GOOS == "windows" && test.setting == "host": // pgx's default is not a socket
		case !errors.As(err, &config) || config.Setting != test.setting || !strings.Contains(err.Error(), test.want):
			t.Errorf("%q: got %v, want %s: %s", test.dsn, err, test.setting, test.want)
		case strings.Contains(err.Error(), "ter2"):
			t.Errorf("%q: the error contains a part of the password: %v", test.dsn, err)
		}
	}
}

func TestConfig_UnsetHostIsAllowedWhereAHostIsKnown(t *testing.T) {
	clearSettings(t)
	name := entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.Host, c.TLSConfig = "db.example.com", &tls.Config{} })
	if _, err := entrapg.PoolConfig("", name); err != nil {
		t.Errorf("a host that the program sets: %v", err)
	}
	if _, err := configOf(t, "sslmode=disable"); err != nil {
		t.Errorf("the local socket: %v", err)
	}
	t.Setenv("PGHOST", "db.example.com")
	if config, err := configOf(t, ""); err != nil || config.Host != "db.example.com" {
		t.Errorf("PGHOST: %v", err)
	}
}

func TestConfig_SpaceAroundDSNIsIgnored(t *testing.T) {
	clearSettings(t)
	for _, dsn := range []string{
		"postgres://app@db.example.com/shop\n", " postgres://app@db.example.com/shop", "\ufeffpostgres://app@db.example.com/shop\r\n",
		"postgres://db.example.com/shop?user=app\n", "\nhost=db.example.com user=app dbname=shop\n", "\ufeffhost=db.example.com user=app dbname=shop",
	} {
		config, err := configOf(t, dsn)
		if err != nil {
			t.Errorf("%q: %v", dsn, err)
			continue
		}
		if config.Host != "db.example.com" || config.User != "app" || config.Database != "shop" {
			t.Errorf("%q: host %q, user %q, database %q", dsn, config.Host, config.User, config.Database)
		}
		if len(config.RuntimeParams) > 0 {
			t.Errorf("%q: %v", dsn, config.RuntimeParams)
		}
	}
	for _, dsn := range []string{"host=db.example.com user=app\\ ", "postgres://app%20@db.example.com"} {
		if config, err := configOf(t, dsn); err != nil || config.User != "app " {
			t.Errorf("%q: user %q, error %v", dsn, config.User, err)
		}
	}
}

func TestConfig_KeyThatServersDoNotKnowIsConfigError(t *testing.T) {
	clearSettings(t)
	for setting, want := range map[string]string{
		"gssencmode=require":               "TLS",
		"gssdelegation=1":                  "omit it",
		"gsslib=gssapi":                    "omit it",
		"sslcompression=1":                 "omit it",
		"sslcrl=x":                         "VerifyConnection",
		"sslcrldir=x":                      "VerifyConnection",
		"sslkeylogfile=x":                  "KeyLogWriter",
		"load_balance_hosts=random":        "RandomizeHostOrderFunc",
		"tcp_user_timeout=1000":            "keepalives_idle",
		"requirepeer=postgres":             "omit it",
		"requiressl=1":                     "sslmode",
		"scram_client_key=hunter2":         "omit it",
		"scram_server_key=hunter2":         "omit it",
		"oauth_issuer=x":                   "omit it",
		"oauth_client_id=x":                "entra_client_id",
		"oauth_client_secret=hunter2":      "environment",
		"oauth_scope=x":                    "entra_scope",
		"oauth_ca_file=x":                  "omit it",
		"binary_parameters=yes":            "lib/pq",
		"keepalives=on":                    `"on"`,
		"keepalives_idle=-1":               `"-1"`,
		"ssl_min_protocol_version=SSLv3":   "TLSv1.2 or TLSv1.3",
		"ssl_max_protocol_version=TLSv1.1": "TLSv1.2 or TLSv1.3",
		"hostaddr=db.internal":             "IP addresses",
		"hostaddr=192.0.2.1,192.0.2.2":     "an address for each",
		"PORT=1":                           "lower case",
		"ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2": "less than",
	} {
		_, err := configOf(t, "host=db.example.com "+setting)
		var config *entrapg.ConfigError
		if !errors.As(err, &config) || !strings.Contains(" "+setting, " "+config.Setting+"=") ||
			!strings.Contains(config.Problem, want) {
			t.Errorf("%s: got %v, want %q", setting, err, want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error contains the secret: %v", setting, err)
		}
	}
}

func TestConfig_KeyOfLibpqWithoutEffectIsNotSentToServer(t *testing.T) {
	clearSettings(t)
	for setting, want := range map[string]string{
		"gssencmode=disable":                                                    "",
		"gssencmode=prefer":                                                     "",
		"sslcompression=0 gssdelegation=0 gsslib=''":                            "",
		"load_balance_hosts=disable tcp_user_timeout=0":                         "",
		"keepalives=1 keepalives_count=3":                                       "",
		"ssl_min_protocol_version=TLSv1":                                        "",
		"hostaddr=192.0.2.1":                                                    "",
		"fallback_application_name=psql":                                        "application_name=psql",
		"fallback_application_name=psql application_name=":                      "application_name=psql",
		"fallback_application_name=psql application_name=shop":                  "application_name=shop",
		"client_encoding=auto":                                                  "client_encoding=UTF8",
		"client_encoding=LATIN1":                                                "client_encoding=LATIN1",
		"TimeZone=UTC search_path=a options='-c geqo=off' statement_timeout=5s": "TimeZone=UTC options=-c geqo=off search_path=a statement_timeout=5s",
		"replication=database my.setting=x":                                     "my.setting=x replication=database",
		"krbsrvname=postgres sslsni=1 sslcertmode=allow passfile=/nowhere":      "",
	} {
		config, err := configOf(t, "host=db.example.com "+setting)
		if err != nil {
			t.Errorf("%s: %v", setting, err)
			continue
		}
		var params []string
		for key, value := range config.RuntimeParams {
			params = append(params, key+"="+value)
		}
		slices.Sort(params)
		if got := strings.Join(params, " "); got != want {
			t.Errorf("%s: sends %q, want %q", setting, got, want)
		}
	}
}

func TestConfig_TLSVersionsAreLimited(t *testing.T) {
	clearSettings(t)
	for dsn, want := range map[string][2]uint16{
		"host=a,b": {0, 0},
		"host=a,b ssl_min_protocol_version=TLSv1.1":                                         {0, 0},
		"host=a,b ssl_min_protocol_version=tlsv1.3":                                         {tls.VersionTLS13, 0},
		"host=a,b ssl_max_protocol_version=TLSv1.2":                                         {0, tls.VersionTLS12},
		"host=a,b entra_credential=none user=u password=p ssl_min_protocol_version=TLSv1.3": {tls.VersionTLS13, 0},
	} {
		config, err := entrapg.PoolConfig(dsn)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		configs := []*tls.Config{config.ConnConfig.TLSConfig}
		for _, f := range config.ConnConfig.Fallbacks {
			configs = append(configs, f.TLSConfig)
		}
		for _, c := range configs {
			if c != nil && [2]uint16{c.MinVersion, c.MaxVersion} != want {
				t.Errorf("%s: versions %x to %x", dsn, c.MinVersion, c.MaxVersion)
			}
		}
	}
}

func TestConfig_KeepalivesAreHonored(t *testing.T) {
	clearSettings(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	for dsn, want := range map[string]keepalive{
		"host=h keepalives=0": {},
		"host=h keepalives=1 keepalives_idle=7 keepalives_interval=3 keepalives_count=2": {true, 7, 3, 2},
		"host=h keepalives_idle=9": {true, 9, 15, 9},
	} {
		config, err := configOf(t, dsn)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		conn, err := config.DialFunc(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		got, supported := keepaliveOf(t, conn)
		conn.Close()
		if supported && got != want {
			t.Errorf("%s: %+v, want %+v", dsn, got, want)
		}
	}
}

// A keepalive has a socket's keepalive settings: whether it sends probes, the times in
// seconds, and the number of probes.
type keepalive struct {
	enabled                bool
	idle, interval, probes int
}

// The address in hostaddr is dialed without a DNS lookup, and the certificate is verified against host.
func TestConfig_HostaddrReplacesLookup(t *testing.T) {
	clearSettings(t)
	for _, test := range []struct {
		dsn    string
		dialed string
		names  string
	}{
		{"host=db.example.com hostaddr=192.0.2.1", "192.0.2.1:5432", "db.example.com"},
		{"postgres://db.example.com:6432/shop?hostaddr=2001:db8::1", "[2001:db8::1]:6432", "db.example.com"},
		{"host=a.example.com,b.example.com port=1,2 hostaddr=192.0.2.1,192.0.2.2", "192.0.2.1:1 192.0.2.2:2", "a.example.com b.example.com"},
		{"host=a.example.com,b.example.com hostaddr=,192.0.2.2", "198.51.100.1:5432 192.0.2.2:5432", "a.example.com b.example.com"},
		{"hostaddr=192.0.2.1,192.0.2.2", "192.0.2.1:5432 192.0.2.2:5432", "192.0.2.1 192.0.2.2"},
		{"host=db.example.com", "198.51.100.1:5432", "db.example.com"},
	} {
		var dialed, names []string
		network := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
			c.LookupFunc = func(_ context.Context, host string) ([]string, error) {
				if net.ParseIP(host) != nil {
					return []string{host}, nil
				}
				return []string{"198.51.100.1"}, nil
			}
			c.DialFunc = func(_ context.Context, _, address string) (net.Conn, error) {
				dialed = append(dialed, address)
				return nil, errors.New("unreachable")
			}
		})
		err := connect(t,
			entrapg.NewConnector(test.dsn+appUser(test.dsn), entrapg.WithCredential(&numbered{life: time.Hour}), network))
		var unreachable *pgconn.ConnectError
		if !errors.As(err, &unreachable) || strings.Join(dialed, " ") != test.dialed {
			t.Errorf("%s: dialed %v, error %v", test.dsn, dialed, err)
			continue
		}
		config, err := configOf(t, test.dsn)
		if err != nil {
			t.Errorf("%s: %v", test.dsn, err)
			continue
		}
		names = append(names, config.TLSConfig.ServerName)
		for _, f := range config.Fallbacks {
			names = append(names, f.TLSConfig.ServerName)
		}
		if strings.Join(names, " ") != test.names {
			t.Errorf("%s: verifies %v", test.dsn, names)
		}
	}
}

// appUser returns a setting for the user, in the form of the DSN.
func appUser(dsn string) string {
	if strings.Contains(dsn, "://") {
		return "&user=app"
	}
	return " user=app"
}

// hostaddr cannot be used to send the token in plaintext to another machine. entrapg
// exec passes it to libpq, which does not check where a host leads.
func TestConfig_HostaddrOfLocalhostIsCheckedForPlaintext(t *testing.T) {
	clearSettings(t)
	for dsn, setting := range map[string]string{
		"host=localhost hostaddr=192.0.2.1 user=app sslmode=disable":            "hostaddr",
		"host=127.0.0.1,127.0.0.2 hostaddr=,192.0.2.1 user=app sslmode=disable": "hostaddr",
		"host=localhost hostaddr=::ffff:192.0.2.1 user=app sslmode=disable":     "hostaddr",
		"host=localhost hostaddr=127.0.0.1 user=app sslmode=disable":            "host", // only the peer is not local
		"host=localhost user=app sslmode=disable":                               "host",
	} {
		dialed := false
		peer := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
			c.DialFunc = func(context.Context, string, string) (net.Conn, error) {
				dialed = true
				client, server := net.Pipe()
				server.Close()
				return addressed{client, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5432}}, nil
			}
		})
		err := connect(t, entrapg.NewConnector(dsn, entrapg.WithCredential(&numbered{life: time.Hour}), peer))
		var config *entrapg.ConfigError
		if !errors.As(err, &config) || config.Setting != setting || dialed != (setting == "host") {
			t.Errorf("%s: got %v, dialed %t, want a ConfigError for %s", dsn, err, dialed, setting)
		}
	}
}

// addressed is a connection to a peer with the given address.
type addressed struct {
	net.Conn
	peer net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.peer }

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

func TestSettings_WhiteSpaceAroundANameIsReported(t *testing.T) {
	for _, test := range []struct{ dsn, variable, value, setting, origin string }{
		{"host=db.example.com", "PGUSER", "shop-api\n", "user", "PGUSER"},
		{"host=db.example.com", "PGDATABASE", " shop", "dbname", "PGDATABASE"},
		{"host=db.example.com user='shop-api\n'", "PGUSER", "", "user", ""},
		{"postgres://db.example.com/shop%0A", "PGUSER", "", "dbname", ""},
	} {
		t.Run(test.setting+test.origin, func(t *testing.T) {
			t.Setenv(test.variable, test.value)
			var invalid *entrapg.ConfigError
			err := connect(t, entrapg.NewConnector(test.dsn, entrapg.WithCredential(&numbered{life: time.Hour})))
			if !errors.As(err, &invalid) || invalid.Setting != test.setting || invalid.Origin != test.origin {
				t.Errorf("got %v, want a ConfigError for %s from %q", err, test.setting, test.origin)
			}
		})
	}
}
