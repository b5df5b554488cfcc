package entrapg

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// FuzzDSN compares parseDSN with pgx: without the entra_ keys, parseDSN accepts what pgx
// accepts, with the same result.
func FuzzDSN(f *testing.F) {
	for _, seed := range dsnSeeds {
		f.Add(seed)
	}
	withoutEnvironment(f)
	byDefault, err := pgx.ParseConfig("")
	if err != nil {
		f.Fatal(err)
	}
	operatingSystemUser := byDefault.User
	f.Fuzz(func(t *testing.T, dsn string) {
		skipFiles(t, dsn)
		want, wantErr := pgx.ParseConfig(dsn)
		got, err := parseDSN(dsn, pgx.ParseConfig)
		if wantErr != nil {
			if err == nil {
				t.Fatalf("pgx rejects it: %v", wantErr)
			}
			return
		}
		var configErr *ConfigError
		if errors.As(err, &configErr) {
			_, parameter := want.RuntimeParams[configErr.Setting] // an entra_ key, or a password under another name
			if configErr == errForeign || parameter || configErr.Setting == "password" && want.Password != "" || configErr.Setting == "sslmode" {
				return
			}
		}
		if err != nil {
			t.Fatalf("pgx accepts it, parseDSN: %v", err)
		}

		own := map[string]string{}
		for _, key := range ownKeys {
			if v, ok := want.RuntimeParams[key]; ok {
				own[key] = v
				delete(want.RuntimeParams, key)
			}
		}
		if !reflect.DeepEqual(got.entra, own) {
			t.Errorf("entra_ keys %v, want %v", got.entra, own)
		}
		password := ""
		if got.credential == noneKind {
			password = want.Password
		}
		if got.config.Password != password {
			t.Errorf("password %q, want %q", got.config.Password, password)
		}
		if got.config.User != want.User && (got.config.User != "" || want.User != operatingSystemUser) {
			t.Errorf("user %q, pgx has %q", got.config.User, want.User)
		}
		if !reflect.DeepEqual(endpoints(&got.config.Config), endpoints(&want.Config)) {
			t.Errorf("endpoints %v, pgx has %v", endpoints(&got.config.Config), endpoints(&want.Config))
		}
		if got.config.Database != want.Database || !reflect.DeepEqual(got.config.RuntimeParams, want.RuntimeParams) {
			t.Errorf("%s %v, pgx has %s %v", got.config.Database, got.config.RuntimeParams, want.Database, want.RuntimeParams)
		}

		// Every endpoint that secure accepts is safe, whatever the DSN.
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

// FuzzConnect checks that Connect reports an invalid DSN before it dials or requests a token,
// and that no DSN makes it panic.
func FuzzConnect(f *testing.F) {
	for _, seed := range dsnSeeds {
		f.Add(seed)
	}
	withoutEnvironment(f)
	f.Fuzz(func(t *testing.T, dsn string) {
		skipFiles(t, dsn)
		errDialed := errors.New("dialed")
		network := WithConnConfig(func(c *pgx.ConnConfig) {
			c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
			c.DialFunc = func(context.Context, string, string) (net.Conn, error) { return nil, errDialed }
		})
		credential := &oneHour{}
		if c, err := PoolConfig(dsn, WithCredential(credential), network); err == nil {
			err = c.BeforeConnect(t.Context(), c.ConnConfig.Copy())
			var unnamed *UsernameError // oneHour's token is not a JSON Web Token
			if err != nil && !errors.As(err, &unnamed) {
				t.Errorf("pool: %v", err)
			}
		}
		credential.calls = 0

		c := NewConnector(dsn, WithCredential(credential), network)
		defer c.Close()
		_, err := c.Connect(t.Context())
		var unnamed *UsernameError
		switch {
		case c.err != nil && (err != c.err || credential.calls > 0): //nolint:errorlint // identity
			t.Errorf("%d tokens requested, error %v, want %v", credential.calls, err, c.err)
		case c.err == nil && !errors.Is(err, errDialed) && !errors.As(err, &unnamed):
			t.Errorf("got %v, want Connect to dial", err)
		case errors.Is(err, errDialed) && errors.As(err, &unnamed):
			t.Errorf("dialed before %v", err)
		}
	})
}

var dsnSeeds = []string{
	"", "host=h", "host=h user=u sslmode=require", `host = 'a b' user = 'it\'s' port=1`, `user=a\`, "host=h sslmode=verify-ca user= user=''",
	"postgres://h", "postgres://u@h:1,h2:2/d?sslmode=require&ssl=true", "postgresql://u:p@[::1?]:5432/d?user=x", "postgres://h?", "postgres://h/?",
	"postgres://h/d?ssl=true", "postgres://h/d?sslmode=disable&ssl=true&ssl=false", "postgres://u%20v@h/", "postgres:///?host=/tmp&", "host=127.0.0.1 sslmode=disable",
	"postgres://h,[::1],h3?a=b", "host=h user=\t'x'y", "postgres://%75@h",
	"host=h entra_credential=managedidentity entra_client_id=00000000-0000-0000-0000-000000000000 a=b", "postgres://u@h?entra_credential=AzureCLI&entra_tenant_id=contoso.example",
	"postgres://u:p@h/d?entra_credential=none&sslmode=prefer", "host=h user=u password=p entra_credential=none", "host=h entra_scope='api://x/.default' entra_x=1", "postgres://h?entra%5fscope=&entra_scope=x",
	"host=/tmp user=u sslmode=disable", "host=s.postgres.database.azure.com,h user=u sslmode=require", "host=h require_auth=!password channel_binding=require", "host=h pool_max_conns=3",
}

// withoutEnvironment keeps the developer's environment out of a fuzz test.
func withoutEnvironment(f *testing.F) {
	for _, name := range []string{"PGUSER", "PGSSLMODE", "PGSERVICE", "PGPASSWORD"} {
		f.Setenv(name, "")
	}
	f.Setenv("PGPASSFILE", "/nonexistent")
}

func skipFiles(t *testing.T, dsn string) {
	for _, key := range []string{"service", "sslrootcert", "sslcert", "sslkey", "passfile"} {
		if strings.Contains(strings.ToLower(dsn), key) {
			t.Skip("reads files")
		}
	}
}

// endpoints lists the hosts without the plaintext duplicates that pgx's default of prefer adds.
func endpoints(c *pgconn.Config) []pgconn.FallbackConfig {
	all := []pgconn.FallbackConfig{{Host: c.Host, Port: c.Port}}
	for _, f := range c.Fallbacks {
		if e := (pgconn.FallbackConfig{Host: f.Host, Port: f.Port}); e != all[len(all)-1] {
			all = append(all, e)
		}
	}
	return all
}

// FuzzToken processes arbitrary tokens with arbitrary lifetimes as Connect does before it
// sends them, with another arbitrary token to look up the user.
func FuzzToken(f *testing.F) {
	encode := base64.RawURLEncoding.EncodeToString
	nobody := "e30." + encode([]byte(`{"oid":"o","tid":"t","appid":"a"}`)) + ".sig"
	for _, seed := range []string{"", "token", "a.b.c", "..", "e30.e30.", nobody, " " + nobody, nobody + "\x00", `"` + nobody + `"`, strings.Repeat("x", maxToken+1)} {
		f.Add(seed, seed, int64(time.Hour), int64(0))
	}
	f.Add(nobody, "e30."+encode([]byte(`{"xms_mirid":"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id"}`))+".", int64(-1), int64(1))
	f.Add("e30."+encode([]byte(`{"upn":"`+strings.Repeat("é", 40)+`","appid":"\u0000"}`))+".sig", nobody, int64(1), int64(-1))
	f.Fuzz(func(t *testing.T, value, management string, life, refresh int64) {
		now := time.Now()
		s := &tokenSource{key: sourceKey{scope: "database", management: "management"}, now: func() time.Time { return now }}
		s.credential = given(credentialFunc(func(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
			answer := azcore.AccessToken{Token: value, ExpiresOn: now.Add(time.Duration(life)), RefreshOn: now.Add(time.Duration(refresh))}
			if o.Scopes[0] == s.key.management {
				answer.Token = management
			}
			return answer, nil
		}))
		got, err := s.answer(t.Context(), &request{user: true, logger: quiet})
		if err != nil {
			if value != "" && strings.Contains(value, "eyJ") && strings.Contains(err.Error(), value) {
				t.Errorf("the error contains the token: %v", err)
			}
			return
		}
		switch {
		case got.value != value || value == "" || len(value) > maxToken || strings.ContainsAny(value, "\x00 \t\r\n\"'"):
			t.Errorf("an invalid token was accepted: %q", value)
		case !now.Before(got.expires) || got.refresh.After(got.expires) || !got.refresh.After(wall(now).Add(-1)):
			t.Errorf("expires in %v, is refreshed in %v", got.expires.Sub(now), got.refresh.Sub(now))
		case (got.user.Role == "") == (got.userErr == nil):
			t.Errorf("user %q, error %v", got.user.Role, got.userErr)
		case len(got.user.Role) > 63 || strings.Contains(got.user.Role, "\x00"):
			t.Errorf("derived %q", got.user.Role)
		}
	})
}

// FuzzLoginReader checks that a loginReader passes on what it receives.
func FuzzLoginReader(f *testing.F) {
	f.Add([]byte("R\x00\x00\x00\x08\x00\x00\x00\x03Z\x00\x00\x00\x05I and so on"), 3)
	f.Add([]byte("N\x00\x00\x00\x03S\xff\xff\xff\xff"), 1)
	f.Fuzz(func(t *testing.T, sent []byte, size int) {
		// In pieces, as from a network.
		r := &loginReader{Reader: iotest.OneByteReader(bytes.NewReader(sent))}
		if size > 0 {
			r.Reader = bytes.NewReader(sent)
		}
		var got []byte
		piece := make([]byte, max(1, min(size, 1<<16)))
		var err error
		for err == nil {
			var n int
			n, err = r.Read(piece)
			got = append(got, piece[:n]...)
		}
		if !bytes.HasPrefix(sent, got) || err == io.EOF && len(got) < len(sent) { //nolint:errorlint // io.Reader's own
			t.Errorf("%q became %q, error %v", sent, got, err)
		}
		if err != io.EOF && r.said <= loginLimit { //nolint:errorlint // as above
			t.Errorf("after %d bytes: %v", r.said, err)
		}
	})
}
