package entrapg_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
)

const guid = "00000000-0000-0000-0000-00000000000a"

func TestConfig_ConnectTimeoutDefaultsTo30Seconds(t *testing.T) {
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

// configOf returns the configuration that a connector would use, and the error
// that Connect would return.
func configOf(t *testing.T, dsn string) (*pgx.ConnConfig, error) {
	t.Helper()
	pool, err := entrapg.PoolConfig(dsn, entrapg.WithCredential(&numbered{}))
	if err != nil {
		return nil, err
	}
	return pool.ConnConfig, nil
}

func TestConfig_InvalidSettingIsReportedBeforeDialing(t *testing.T) {
	const host = "host=db.example.com "
	var nilCredential *azidentity.AzureCLICredential
	dir := t.TempDir()
	services, malformed := filepath.Join(dir, "services"), filepath.Join(dir, "malformed")
	for path, text := range map[string]string{services: "[other]\n", malformed: "password=hunter2\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		dsn     string
		opts    []entrapg.Option
		setting string
		want    string
	}{
		"not a DSN":           {"db.example.com", nil, "dsn", "postgres:// URL"},
		"a stray quote":       {"host='db", nil, "dsn", "unterminated"},
		"an invalid port":     {"postgres://db.example.com:x/", nil, "port", "port"},
		"a missing CA file":   {host + "sslrootcert=/nowhere/ca.pem", nil, "sslrootcert", "/nowhere/ca.pem"},
		"a CA file in a port": {host + "sslrootcert=/port/service", nil, "sslrootcert", "/port/service"},
		"a missing service file": {
			host + "service=shop servicefile=/nowhere", nil, "service",
			"service file /nowhere does not exist; create it, or correct servicefile",
		},
		"a directory of services": {
			host + "service=shop servicefile=" + quote(dir), nil, "service", "service file " + dir + " cannot be read",
		},
		"a malformed service file": {host + "service=shop servicefile=" + quote(malformed), nil, "service", malformed + " is malformed"},
		"an unknown service": {
			host + "service=shop servicefile=" + quote(services), nil, "service",
			services + ` has no service "shop"; add [shop]`,
		},
		"an unknown sslmode": {
			host + "sslmode=verify-ful", nil, "sslmode",
			`unknown mode "verify-ful"; use verify-full, which is the default, verify-ca or require, ` +
				`or disable for loopback and Unix sockets`,
		},
		"an unescaped = in a URL": {
			"postgres://db.example.com/?options=-csearch_path=hunter2", nil, "options",
			"unescaped = in its value; write it as %3D",
		},
		"an unescaped = in a password": {"postgres://u:pa/?hunter2=a=b", nil, "dsn", "a parameter of the URL has an unescaped ="},
		"an unescaped % in a URL": {
			"postgres://db.example.com/?options=-c%20search_path%zz", nil, "options", "write the % of a value as %25",
		},
		"a parameter without a value": {"postgres://db.example.com/?options", nil, "options", "has no value; write KEY=VALUE"},
		"an empty sslmode":            {host + "sslmode=", nil, "sslmode", "empty"},
		"a password":                  {host + "password=hunter2", nil, "password", "remove it"},
		"a password in a URL":         {"postgres://app:hunter2@db.example.com/", nil, "password", "remove it"},
		"a password in a query":       {"postgres://db.example.com/?pass%77ord=hunter2", nil, "password", "remove it"},
		"a misspelled password key":   {host + "passwd=hunter2", nil, "passwd", "remove it"},
		"a password in capitals":      {host + "PASSWORD=hunter2", nil, "PASSWORD", "remove it"},
		"an ADO.NET DSN":              {"Server=db;Database=d;User Id=u;Password=hunter2;", nil, "dsn", "postgres:// URL"},
		"a JDBC DSN":                  {"jdbc:postgresql://db/d?user=a&password=hunter2", nil, "dsn", "postgres:// URL"},
		"a misspelled scheme":         {"postgre://a:hunter2@db/d", nil, "dsn", "begins with postgres://"},
		"a scheme in capitals":        {"Postgres://a:hunter2@db/d", nil, "dsn", "begins with postgres://"},
		"sslcert without sslkey":      {host + "sslcert=/nowhere", nil, "sslcert", "sslcert and sslkey"},
		"a pool's setting":            {host + "pool_max_conns=3", nil, "pool_max_conns", "use PoolConfig"},
		"a misspelled pool's setting": {host + "pool_max_con=3", nil, "pool_max_con", "pgxpool's keys are pool_max_conns,"},
		"a port out of range":         {host + "port=70000", nil, "port", "use a number from 1 to 65535"},
		"a timeout with a unit":       {host + "connect_timeout=5s", nil, "connect_timeout", `invalid value "5s"; use a number of seconds`},
		"an unknown kind of session": {
			host + "target_session_attrs=master", nil, "target_session_attrs", `invalid value "master"; use any, read-write,`,
		},
		"an unknown exec mode": {
			host + "default_query_exec_mode=none", nil, "default_query_exec_mode", `invalid value "none"; use cache_statement,`,
		},
		"an unknown protocol": {host + "max_protocol_version=4", nil, "max_protocol_version", `invalid value "4"; use 3.0, 3.2 or latest`},
		"channel binding":     {host + "channel_binding=require", nil, "channel_binding", "omit it"},
		"no password method":  {host + "require_auth=scram-sha-256", nil, "require_auth", "password"},
		"password forbidden":  {host + "require_auth=!password,!oauth", nil, "require_auth", "password"},
		"a blank WithScope":   {host, []entrapg.Option{entrapg.WithScope(" ")}, "WithScope", "empty"},
		"a nil function":      {host, []entrapg.Option{entrapg.WithCredential(credentialFunc(nil))}, "WithCredential", "nil"},
		"no dialer": {
			host,
			[]entrapg.Option{entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.DialFunc = nil })},
			"WithConnConfig",
			"DialFunc",
		},
		"a nil fallback": {
			host,
			[]entrapg.Option{entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.Fallbacks = []*pgconn.FallbackConfig{nil} })},
			"WithConnConfig", "fallback",
		},
		"an unknown entra_ key": {host + "entra_scoop=x", nil, "entra_scoop", "unknown key"},
		"entra_ in capitals":    {host + "Entra_Scope=x", nil, "Entra_Scope", "unknown key"},
		"an empty scope":        {host + "entra_scope=", nil, "entra_scope", "empty"},
		"two scopes":            {host + "entra_scope=a", []entrapg.Option{entrapg.WithScope("b")}, "entra_scope", "different scopes"},
		"an empty WithScope":    {host, []entrapg.Option{entrapg.WithScope("")}, "WithScope", "empty"},
		"an unknown credential": {
			host + "entra_credential=kerberos", nil, "entra_credential", "azuredevelopercli, azurepowershell, none",
		},
		"an empty credential": {host + "entra_credential=", nil, "entra_credential", "default, environment"},
		"two credentials": {
			host + "entra_credential=azurecli",
			[]entrapg.Option{entrapg.WithCredential(&numbered{})},
			"entra_credential",
			"WithCredential",
		},
		"none and a credential": {
			host + "entra_credential=none user=u",
			[]entrapg.Option{entrapg.WithCredential(&numbered{})},
			"entra_credential",
			"WithCredential",
		},
		"a client ID and WithCredential": {
			host + "entra_client_id=" + guid,
			[]entrapg.Option{entrapg.WithCredential(&numbered{})},
			"entra_client_id",
			"WithCredential",
		},
		"prefer":                 {host + "sslmode=prefer", nil, "sslmode", "verify-full"},
		"allow":                  {host + "sslmode=allow", nil, "sslmode", "verify-full"},
		"prefer on loopback":     {"host=127.0.0.1 sslmode=prefer", nil, "sslmode", "verify-full"},
		"disable for a remote":   {host + "sslmode=disable", nil, "sslmode", "plaintext"},
		"disable for one remote": {"host=127.0.0.1,db.example.com sslmode=disable", nil, "sslmode", "db.example.com"},
		"disable for Azure":      {"host=" + azureName + " sslmode=disable", nil, "sslmode", "plaintext"},
		"disable for 127.1":      {"host=127.1 sslmode=disable", nil, "sslmode", "plaintext"},
		"a socket without TLS":   {"host=/run/postgresql", nil, "host", "Unix socket"},
		"a nil credential":       {host, []entrapg.Option{entrapg.WithCredential(nil)}, "WithCredential", "nil"},
		"a typed nil credential": {host, []entrapg.Option{entrapg.WithCredential(nilCredential)}, "WithCredential", "nil"},
		"a nil WithConnConfig":   {host, []entrapg.Option{entrapg.WithConnConfig(nil)}, "WithConnConfig", "nil"},
		"a nil stdlib option":    {host, []entrapg.Option{entrapg.WithStdlib(nil)}, "WithStdlib", "nil"},
		"a password by code": {
			host,
			[]entrapg.Option{entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.Password = "hunter2" })},
			"WithConnConfig",
			"Password",
		},
		"hosts of two clouds": {"host=" + azureName + ",x.postgres.database.chinacloudapi.cn", nil, "host", "different Azure clouds"},
		"no TLS by code": {
			host,
			[]entrapg.Option{entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.TLSConfig = nil })},
			"sslmode",
			"plaintext",
		},
		"no TLS by code on loopback": {
			"host=127.0.0.1",
			[]entrapg.Option{entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.TLSConfig = nil })},
			"sslmode",
			"plaintext",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dial := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
				c.DialFunc = func(context.Context, string, string) (net.Conn, error) {
					t.Error("Connect dialed")
					return nil, errors.New("dialed")
				}
			})
			credential := &numbered{}
			c := entrapg.NewConnector(test.dsn,
				append([]entrapg.Option{entrapg.WithCredential(credential), nil, dial}, test.opts...)...)
			defer c.Close()
			c.Stats()
			_, err := c.Connect(t.Context())
			var config *entrapg.ConfigError
			if !errors.As(err, &config) {
				t.Fatalf("got %v, want a ConfigError", err)
			}
			if config.Setting != test.setting || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q for setting %q, want %q for %q", err, config.Setting, test.want, test.setting)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error contains the password")
			}
			if credential.count() > 0 {
				t.Error("a token was requested")
			}
		})
	}
}

func TestConfig_KeyNotUsedByCredentialIsError(t *testing.T) {
	const host = "host=db.example.com "
	for dsn, want := range map[string]string{
		"entra_client_id=" + guid:                                        "entra_client_id", // of the default credential
		"entra_credential=default entra_client_id=" + guid:               "entra_client_id",
		"entra_credential=environment entra_client_id=" + guid:           "entra_client_id",
		"entra_credential=environment entra_tenant_id=" + guid:           "entra_tenant_id",
		"entra_credential=managedidentity entra_tenant_id=" + guid:       "entra_tenant_id",
		"entra_credential=azurecli entra_client_id=" + guid:              "entra_client_id",
		"entra_credential=azuredevelopercli entra_client_id=" + guid:     "entra_client_id",
		"entra_credential=azurepowershell entra_client_id=" + guid:       "entra_client_id",
		"entra_credential=none user=u entra_client_id=" + guid:           "entra_client_id",
		"entra_credential=none user=u entra_tenant_id=" + guid:           "entra_tenant_id",
		"entra_credential=none user=u entra_scope=x":                     "entra_scope",
		"entra_credential=managedidentity entra_client_id=":              "entra_client_id",
		"entra_credential=managedidentity entra_client_id=/providers/id": "entra_client_id", // a resource ID
		"entra_credential=azurecli entra_tenant_id='a b'":                "entra_tenant_id",
		"entra_credential=azurecli entra_tenant_id=":                     "entra_tenant_id",
	} {
		var config *entrapg.ConfigError
		if err := connect(t, entrapg.NewConnector(host+dsn)); !errors.As(err, &config) || config.Setting != want {
			t.Errorf("%s: got %v, want a ConfigError for %s", dsn, err, want)
		}
	}
	for _, dsn := range []string{
		"entra_credential=default entra_tenant_id=contoso.example entra_scope=x",
		"entra_credential=EnvironmentCredential",
		"entra_credential=WorkloadIdentity entra_client_id=" + guid + " entra_tenant_id=" + guid,
		"entra_credential=MANAGEDIDENTITYCREDENTIAL entra_client_id=" + guid,
		"entra_credential=azureCLI entra_tenant_id=" + guid,
		"entra_credential=AzureDeveloperCLICredential entra_tenant_id=" + guid,
		"entra_credential=azurepowershellcredential entra_tenant_id=" + guid,
	} {
		if _, err := entrapg.PoolConfig(host + dsn); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func TestConfig_ZeroConnectorIsConfigError(t *testing.T) {
	var c entrapg.Connector
	var config *entrapg.ConfigError
	if err := connect(t, &c); !errors.As(err, &config) {
		t.Errorf("got %v, want a ConfigError", err)
	}
	c.Stats()
	c.Close()
}

func TestConfig_MalformedDSNErrorOmitsPassword(t *testing.T) {
	for _, dsn := range []string{
		"host=db password=hun ter2 user=x",
		"postgres://app:hun/ter2@db.example.com/x?y",
		"postgres://app:hun%zzter2@db.example.com/",
		"postgres://app:p/w?hunter2@db.example.com/",
		"postgres://app:hun`: ter2@db:x/",
		`postgres://db/?a="hun"ter2%zz=1`,
	} {
		err := connect(t, entrapg.NewConnector(dsn))
		var config *entrapg.ConfigError
		if !errors.As(err, &config) {
			t.Errorf("%s: got %v, want a ConfigError", dsn, err)
		} else if strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: the error contains part of the password: %v", dsn, err)
		}
	}
}

func TestConfig_MissingFileErrorIsWrapped(t *testing.T) {
	err := connect(t, entrapg.NewConnector("host=db.example.com sslrootcert=/nowhere/ca.pem"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestConfig_UserComesFromDSNThenServiceThenPGUSER(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(services, []byte("[named]\nuser=of-service\n[nameless]\nport=5433\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dsn, service, pguser, want string }{
		{"host=db.example.com", "", "", ""},
		{"host=db.example.com", "", "of-env", "of-env"},
		{"host=db.example.com", "named", "of-env", "of-service"},
		{"host=db.example.com", "nameless", "of-env", "of-env"},
		{"host=db.example.com user=of-dsn", "named", "of-env", "of-dsn"},
		{"host=db.example.com user='its' user='of\\'dsn'", "", "of-env", "of'dsn"},
		{"host=db.example.com user=''", "", "of-env", "of-env"},
		{"host=db.example.com service=named servicefile=" + quote(services), "", "", "of-service"},
		{"postgres://db.example.com", "", "of-env", "of-env"},
		{"postgres://@db.example.com", "named", "of-env", "of-service"},
		{"postgres://of%20dsn@db.example.com/", "named", "of-env", "of dsn"},
		{"postgres://x@db.example.com/?user=of-dsn", "named", "of-env", "of-dsn"},
		{"postgres://[::1]:5432/?user=of-dsn&sslmode=disable", "", "of-env", "of-dsn"},
	} {
		t.Setenv("PGUSER", test.pguser)
		t.Setenv("PGSERVICE", test.service)
		t.Setenv("PGSERVICEFILE", services)
		config, err := configOf(t, test.dsn)
		if err != nil {
			t.Errorf("%+v: %v", test, err)
		} else if config.User != test.want {
			t.Errorf("%+v: user %q", test, config.User)
		}
	}
}

func TestConfig_PassfileAndPGPASSWORDAreIgnored(t *testing.T) {
	passfile := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(passfile, []byte("*:*:*:*:hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGPASSFILE", passfile)
	config, err := configOf(t, "host=db.example.com user=app")
	if err != nil || config.Password != "" {
		t.Errorf("passfile: password %q, error %v", config.Password, err)
	}
	t.Setenv("PGPASSWORD", "hunter2")
	config, err = configOf(t, "host=db.example.com user=app")
	if err != nil || config.Password != "" {
		t.Errorf("PGPASSWORD: password %q, error %v", config.Password, err)
	}
}

func TestConfig_RequireAuthThatAllowsTokenIsAccepted(t *testing.T) {
	for _, methods := range []string{"password", "\tpassword , scram-sha-256", " !md5,!gss", "!none"} {
		if _, err := configOf(t, "host=db.example.com require_auth="+quote(methods)); err != nil {
			t.Errorf("%q: %v", methods, err)
		}
	}
}

func TestConfig_EntraKeysAreNotSentToServer(t *testing.T) {
	config, err := entrapg.PoolConfig(
		"postgres://db.example.com/?entra_credential=workloadidentity&entra_client_id=" + guid +
			"&entra_tenant_id=contoso.example&entra_scope=x&application_name=app",
	)
	if err != nil {
		t.Fatal(err)
	}
	if params := config.ConnConfig.RuntimeParams; len(params) != 1 || params["application_name"] != "app" {
		t.Errorf("runtime parameters: %v", params)
	}
}

func TestConfig_ScopeFollowsCloudOfHostUnlessSet(t *testing.T) {
	const public, government, china, cosmos = "https://ossrdbms-aad.database.windows.net/.default",
		"https://ossrdbms-aad.database.usgovcloudapi.net/.default",
		"https://ossrdbms-aad.database.chinacloudapi.cn/.default",
		"https://token.postgres.cosmos.azure.com/.default"
	for _, test := range []struct {
		dsn, want string
		opts      []entrapg.Option
		authority string
	}{
		{"host=" + azureName, public, nil, ""},
		{"host=db.example.com", public, nil, ""},
		{"host=db.example.com", china, nil, "https://login.chinacloudapi.cn"}, // as through a tunnel
		{"host=db.example.com", public, nil, "https://login.example.com/"},
		{"host=" + azureName, public, nil, "https://login.chinacloudapi.cn/"},
		{"host=X.Postgres.Database.USGovCloudAPI.net.", government, nil, ""},
		{"host=x.postgres.database.chinacloudapi.cn", china, nil, ""},
		{"host=127.0.0.1,x.postgres.cosmos.azure.com", cosmos, nil, ""},
		{"host=" + azureName + " entra_scope=api://odd", "api://odd", nil, ""},
		{"host=" + azureName, "api://odd", []entrapg.Option{entrapg.WithScope("api://odd")}, ""},
	} {
		t.Setenv("AZURE_AUTHORITY_HOST", test.authority)
		var requested string
		stop := errors.New("requested")
		credential := credentialFunc(func(_ context.Context, scope string) (azcore.AccessToken, error) {
			requested = scope
			return azcore.AccessToken{}, stop
		})
		err := connect(t, entrapg.NewConnector(test.dsn+" user=app", append(test.opts, entrapg.WithCredential(credential))...))
		if !errors.Is(err, stop) || requested != test.want {
			t.Errorf("%s: requested %q, error %v; want %q", test.dsn, requested, err, test.want)
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

func TestConfig_WhiteSpaceAroundANameIsReported(t *testing.T) {
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
