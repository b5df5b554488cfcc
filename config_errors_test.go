package entrapg_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
)

// clearSettings unsets the variables that name a host.
func clearSettings(t *testing.T) {
	for _, name := range []string{"PGHOST", "PGHOSTADDR", "PGSERVICE", "PGSSLMODE", "PGUSER"} {
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
		{host, "PGHOSTADDR", "192.0.2.1,192.0.2.2", "hostaddr", "PGHOSTADDR", "1 and 2 elements"},
		{host, "PGHOSTADDR", "tunnel", "hostaddr", "PGHOSTADDR", "IP addresses"},
		{"host=localhost sslmode=disable", "PGHOSTADDR", "192.0.2.1", "hostaddr", "PGHOSTADDR", "plaintext"},
		{"host=/tmp sslmode=disable", "PGHOSTADDR", "127.0.0.1", "hostaddr", "PGHOSTADDR", "Unix socket"},
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
