package connstring_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/internal/connstring"
)

// FuzzParse compares Parse with pgx: pgx must parse a DSN made of the settings that
// Parse returns to the same configuration as the original DSN.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "host=h", "host=h user=u sslmode=require", `host = 'a b' user = 'it\'s' port=1`, `user=a\`,
		"host=h sslmode=verify-ca user= user=''", "database=a dbname=b", "host=a,,c port=1,2, sslmode=verify-full",
		"postgres://h", "postgres://u@h:1,h2:2/d?sslmode=require&ssl=true", "postgresql://u:p@[::1?]:5432/d?user=x",
		"postgres://h?", "postgres://h/?", "postgres://h/d?ssl=true", "postgres://h/d?sslmode=disable&ssl=true&ssl=false",
		"postgres://u%20v@h/", "postgres:///?host=/tmp&", "postgres://h,[::1],h3?a=b", "postgres://%75@h", "postgres:// @h",
		"host=127.0.0.1 sslmode=disable", "host=h user=\t'x'y=z", "postgres://h/d?database=e&dbname=",
		"postgres://u?v@h?user=",
		"postgres://h%2c[::1]:1%2c2/d/e?port=", "host=h sslmode=allow sslnegotiation=direct sslsni=0",
		"\vpostgres://=",
	} {
		f.Add(seed)
	}
	clearEnvironment(f)
	unset, err := pgx.ParseConfig("")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		for _, key := range []string{"service", "sslrootcert", "sslcert", "sslkey", "passfile"} {
			if strings.Contains(strings.ToLower(dsn), key) {
				t.Skip("reads files")
			}
		}
		settings := connstring.Parse(dsn)
		with := connstring.WithDefault(dsn, "sslmode", "verify-full")
		want, err := pgx.ParseConfig(dsn)
		if err != nil {
			return
		}

		user, set := settings["user"]
		if want.User != user.Value && (set || want.User != unset.User) {
			t.Errorf("user %q, pgx has %q", user.Value, want.User)
		}
		if want.Database != settings.Value("dbname") {
			t.Errorf("database %q, pgx has %q", settings.Value("dbname"), want.Database)
		}

		again := " " // keeps it from looking like a URL
		if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
			again = "postgres://"
		}
		for key, setting := range settings {
			if strings.HasPrefix(key, "postgres") && strings.Contains(key, "://") {
				t.Skip("a key that makes another DSN look like a URL")
			}
			again = connstring.WithDefault(again, key, setting.Value)
		}
		got, err := pgx.ParseConfig(again)
		if err != nil {
			t.Fatalf("pgx rejects %q, made of %v: %v", again, settings, err)
		}
		if describe(got) != describe(want) {
			t.Errorf("pgx parses %q to\n%s\nbut %q to\n%s", again, describe(got), dsn, describe(want))
		}

		got, err = pgx.ParseConfig(with)
		if err != nil {
			t.Fatalf("pgx rejects %q: %v", with, err)
		}
		if _, set := settings["sslmode"]; set && describe(got) != describe(want) {
			t.Errorf("pgx parses %q to\n%s\nbut %q to\n%s", with, describe(got), dsn, describe(want))
		} else if !set && got.TLSConfig != nil && (got.TLSConfig.InsecureSkipVerify || got.TLSConfig.ServerName != got.Host) {
			t.Errorf("%q does not mean verify-full", with)
		}
	})
}

// describe returns the settings of a configuration. sslmode shows in the TLS
// settings of each host and in the number of fallbacks.
func describe(c *pgx.ConnConfig) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %v %q ", c.User, c.Password, c.Database, c.ConnectTimeout, c.RuntimeParams)
	fmt.Fprintf(&b, "%q %q %q\n", c.RequireAuth, c.ChannelBinding, c.SSLNegotiation)
	endpoint := func(host string, port uint16, config *tls.Config) {
		fmt.Fprintf(&b, "%q %d", host, port)
		if config != nil {
			fmt.Fprintf(&b, " %q %q", config.ServerName, config.NextProtos)
			fmt.Fprintf(&b, " %t %t", config.InsecureSkipVerify, config.VerifyPeerCertificate != nil)
		}
		b.WriteByte('\n')
	}
	endpoint(c.Host, c.Port, c.TLSConfig)
	for _, f := range c.Fallbacks {
		endpoint(f.Host, f.Port, f.TLSConfig)
	}
	return b.String()
}
