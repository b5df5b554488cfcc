package entrapg

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// FuzzDSN checks parseDSN against pgx, the authority on what a DSN means.
func FuzzDSN(f *testing.F) {
	for _, seed := range []string{
		"", "host=h", "host=h user=u sslmode=require", `host = 'a b' user = 'it\'s' port=1`, `user=a\`, "host=h sslmode=verify-ca user= user=''",
		"postgres://h", "postgres://u@h:1,h2:2/d?sslmode=require&ssl=true", "postgresql://u:p@[::1?]:5432/d?user=x", "postgres://h?", "postgres://h/?",
		"postgres://h/d?ssl=true", "postgres://h/d?sslmode=disable&ssl=true&ssl=false", "postgres://u%20v@h/", "postgres:///?host=/tmp&", "host=127.0.0.1 sslmode=disable",
		"postgres://h,[::1],h3?a=b", "host=h user=\t'x'y", "postgres://%75@h",
	} {
		f.Add(seed)
	}
	for _, name := range []string{"PGUSER", "PGSSLMODE", "PGSERVICE", "PGPASSWORD"} {
		f.Setenv(name, "")
	}
	f.Setenv("PGPASSFILE", "/nonexistent")
	byDefault, err := pgx.ParseConfig("")
	if err != nil {
		f.Fatal(err)
	}
	operatingSystemUser := byDefault.User
	f.Fuzz(func(t *testing.T, dsn string) {
		for _, key := range []string{"service", "sslrootcert", "sslcert", "sslkey", "passfile", "entra_"} {
			if strings.Contains(strings.ToLower(dsn), key) {
				t.Skip("reads files, or is ours")
			}
		}
		want, wantErr := pgx.ParseConfig(dsn)
		got, err := parseDSN(dsn, pgx.ParseConfig)
		if wantErr != nil {
			if err == nil {
				t.Fatalf("pgx refuses it: %v", wantErr)
			}
			return
		}
		var refused *ConfigError
		if errors.As(err, &refused) {
			_, parameter := want.RuntimeParams[refused.Setting] // a password under another name
			if refused == errForeign || parameter || refused.Setting == "password" && want.Password != "" || refused.Setting == "sslmode" {
				return
			}
		}
		if err != nil {
			t.Fatalf("pgx takes it, but: %v", err)
		}

		if got.config.User != want.User && (got.config.User != "" || want.User != operatingSystemUser) {
			t.Errorf("user %q, pgx has %q", got.config.User, want.User)
		}
		if got.config.Password != "" {
			t.Error("a password is left")
		}
		if !reflect.DeepEqual(endpoints(&got.config.Config), endpoints(&want.Config)) {
			t.Errorf("endpoints %v, pgx has %v", endpoints(&got.config.Config), endpoints(&want.Config))
		}
		if got.config.Database != want.Database || !reflect.DeepEqual(got.config.RuntimeParams, want.RuntimeParams) {
			t.Errorf("%s %v, pgx has %s %v", got.config.Database, got.config.RuntimeParams, want.Database, want.RuntimeParams)
		}

		// What may be connected to is safe, whatever the DSN.
		if (transportRules{sslmode: got.sslmode}).secure(&got.config.Config) != nil {
			return
		}
		for _, f := range append(got.config.Fallbacks, &pgconn.FallbackConfig{Host: got.config.Host, TLSConfig: got.config.TLSConfig}) {
			switch {
			case f.TLSConfig == nil && (got.sslmode != "disable" || !isLocal(f.Host)):
				t.Errorf("plaintext to %q under sslmode %q", f.Host, got.sslmode)
			case f.TLSConfig != nil && cloudOf(f.Host) != nil && (f.TLSConfig.InsecureSkipVerify || f.TLSConfig.ServerName != f.Host):
				t.Errorf("%q is not verified", f.Host)
			}
		}
	})
}

// endpoints lists the hosts without the plaintext twins that pgx's own default
// of prefer makes.
func endpoints(c *pgconn.Config) []pgconn.FallbackConfig {
	all := []pgconn.FallbackConfig{{Host: c.Host, Port: c.Port}}
	for _, f := range c.Fallbacks {
		if e := (pgconn.FallbackConfig{Host: f.Host, Port: f.Port}); e != all[len(all)-1] {
			all = append(all, e)
		}
	}
	return all
}
