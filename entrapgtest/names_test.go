package entrapgtest_test

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// The rows of the tables in docs/tls.md, with a server whose certificate is like that of
// Azure's servers.
func TestServer_IsVerifiedByEveryNameAsOnAzure(t *testing.T) {
	t.Parallel()
	azure := startFront(t, entrapgtest.Config{Hostnames: []string{"*.postgres.database.azure.com"}})
	elsewhere := startFront(t, entrapgtest.Config{Hostnames: []string{"db.internal.example"}})
	const (
		server    = "shop.postgres.database.azure.com"
		writer    = "shop.writer.postgres.database.azure.com"
		reader    = "shop.reader.postgres.database.azure.com"
		china     = "shop.postgres.database.chinacloudapi.cn"
		private   = "db.internal.example"
		unsafe    = "invalid setting"
		name      = "certificate is valid for"
		authority = "unknown authority"
		noTLS     = "no encryption"
	)
	for _, s := range []*entrapgtest.Server{azure, elsewhere} {
		alice := s.Tenant.NewUser("alice-names@contoso.example")
		createRole(t, s, "", alice)
		_, port, _ := net.SplitHostPort(s.Addr())
		for _, test := range []struct {
			host, sslmode    string
			azure, elsewhere string // a part of the error; empty if the login works
			noRoots          bool
		}{
			{host: server, elsewhere: name},
			{host: server, sslmode: "verify-full", elsewhere: name},
			{host: server, sslmode: "require", elsewhere: name},
			{host: server, sslmode: "verify-ca", elsewhere: name},
			{host: server, sslmode: "require", noRoots: true, azure: authority, elsewhere: name},
			{host: writer, azure: name, elsewhere: name},
			{host: writer, sslmode: "verify-full", azure: name, elsewhere: name},
			{host: writer, sslmode: "require", azure: name, elsewhere: name},
			{host: writer, sslmode: "verify-ca", elsewhere: name},
			{host: reader, sslmode: "verify-ca", elsewhere: name},
			{host: china, sslmode: "verify-ca", azure: name, elsewhere: name}, // another cloud
			{host: private, azure: name},
			{host: private, sslmode: "verify-full", azure: name},
			{host: private, sslmode: "require"},
			{host: private, sslmode: "verify-ca"},
			{host: private, sslmode: "require", noRoots: true, azure: authority, elsewhere: authority},
			{host: private, sslmode: "verify-ca", noRoots: true, azure: authority, elsewhere: authority},
			{host: private, sslmode: "disable", azure: unsafe, elsewhere: unsafe},
			{host: private, sslmode: "prefer", azure: unsafe, elsewhere: unsafe},
			{host: private, sslmode: "allow", azure: unsafe, elsewhere: unsafe},
			{host: writer, sslmode: "disable", azure: unsafe, elsewhere: unsafe},
			{host: "localhost", sslmode: "verify-full"},
			{host: "localhost", sslmode: "disable", azure: noTLS, elsewhere: noTLS},
		} {
			want := test.azure
			if s == elsewhere {
				want = test.elsewhere
			}
			dsn := "host=" + test.host + " hostaddr=127.0.0.1 port=" + port + " dbname=postgres"
			if !test.noRoots {
				dsn += " sslrootcert='" + filepath.ToSlash(s.CAFile()) + "'"
			}
			if test.sslmode != "" {
				dsn += " sslmode=" + test.sslmode
			}
			connector := entrapg.NewConnector(dsn, entrapg.WithCredential(alice), entrapg.WithLogger(nil))
			conn, err := connector.Connect(t.Context())
			var config *entrapg.ConfigError
			switch {
			case err == nil:
				conn.Close()
				if want != "" {
					t.Errorf("%s: it works, want %q", dsn, want)
				}
			case want == unsafe:
				if !errors.As(err, &config) {
					t.Errorf("%s: %v, want a ConfigError", dsn, err)
				}
			case want == "" || !strings.Contains(err.Error(), want):
				t.Errorf("%s: %v, want %q", dsn, err, want)
			}
			connector.Close()
		}
	}

	// The program can set the name to verify.
	alice := azure.Tenant.NewUser("alice-code@contoso.example")
	createRole(t, azure, "", alice)
	_, port, _ := net.SplitHostPort(azure.Addr())
	for host, sslmode := range map[string]string{writer: "require", private: "verify-full"} {
		connector := entrapg.NewConnector(
			"host="+host+" hostaddr=127.0.0.1 port="+port+" dbname=postgres sslmode="+sslmode+
				" sslrootcert='"+filepath.ToSlash(azure.CAFile())+"'",
			entrapg.WithCredential(alice),
			entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.TLSConfig.ServerName = server }),
		)
		conn, err := connector.Connect(t.Context())
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		conn.Close()
		connector.Close()
	}
}
