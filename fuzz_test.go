package entrapg

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/token"
)

// FuzzDSN compares parseDSN with pgx: without the keys that entrapg handles, parseDSN accepts what
// pgx accepts, with the same result.
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
		dsn = connstring.Clean(dsn)
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
			_, parameter := want.RuntimeParams[configErr.Setting] // a key that servers do not know, or a password under another name
			if configErr.Setting == "dsn" || parameter || configErr.Setting == "password" && want.Password != "" ||
				configErr.Setting == "sslmode" {
				return
			}
		}
		if err != nil {
			t.Fatalf("pgx accepts it, parseDSN: %v", err)
		}

		_, byAddress := want.RuntimeParams["hostaddr"]
		forgetHandled(want.RuntimeParams)
		own := map[string]string{}
		for _, key := range ownKeys {
			if v, ok := want.RuntimeParams[key]; ok {
				own[key] = v
				delete(want.RuntimeParams, key)
			}
		}
		if !reflect.DeepEqual(got.keys, own) {
			t.Errorf("entra_ keys %v, want %v", got.keys, own)
		}
		password := ""
		if got.tls.noEntra {
			password = want.Password
		}
		if got.pgx.Password != password {
			t.Errorf("password %q, want %q", got.pgx.Password, password)
		}
		if got.pgx.User != want.User && (got.pgx.User != "" || want.User != operatingSystemUser) {
			t.Errorf("user %q, pgx has %q", got.pgx.User, want.User)
		}
		if !byAddress && !reflect.DeepEqual(hostsAndPorts(&got.pgx.Config), hostsAndPorts(&want.Config)) {
			t.Errorf("endpoints %v, pgx has %v", hostsAndPorts(&got.pgx.Config), hostsAndPorts(&want.Config))
		}
		if got.pgx.Database != want.Database || !reflect.DeepEqual(got.pgx.RuntimeParams, want.RuntimeParams) {
			t.Errorf("%s %v, pgx has %s %v", got.pgx.Database, got.pgx.RuntimeParams, want.Database, want.RuntimeParams)
		}

		// Every endpoint that apply accepts is safe, whatever the DSN.
		policy := got.tls
		policy.noEntra = false
		if policy.apply(&got.pgx.Config) != nil {
			return
		}
		for host, c := range endpoints(&got.pgx.Config) {
			switch {
			case c == nil && (policy.sslmode != "disable" || !isLocal(host)):
				t.Errorf("plaintext to %q under sslmode %q", host, policy.sslmode)
			case c == nil:
			case c.InsecureSkipVerify && c.VerifyConnection == nil:
				t.Errorf("%q is not verified", host)
			case serviceOf(host) != nil && policy.sslmode != "verify-ca" && (c.InsecureSkipVerify || c.ServerName != host):
				t.Errorf("%q is not verified by its name", host)
			}
		}
	})
}

// forgetHandled makes the same changes to params as takeParameters.
func forgetHandled(params map[string]string) {
	maps.DeleteFunc(params, func(key, _ string) bool {
		_, unsupported := unsupportedKeys[strings.ToLower(key)]
		return unsupported || slices.Contains([]string{
			"hostaddr", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
			"ssl_min_protocol_version", "ssl_max_protocol_version",
		}, key)
	})
	if fallback := params["fallback_application_name"]; fallback != "" && params["application_name"] == "" {
		params["application_name"] = fallback
	}
	delete(params, "fallback_application_name")
	if params["client_encoding"] == "auto" {
		params["client_encoding"] = "UTF8"
	}
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
	"", "host=h", "host=h user=u sslmode=require", `host = 'a b' user = 'it\'s' port=1`, `user=a\`,
	"host=h sslmode=verify-ca user= user=''",
	"postgres://h", "postgres://u@h:1,h2:2/d?sslmode=require&ssl=true", "postgresql://u:p@[::1?]:5432/d?user=x", "postgres://h?",
	"postgres://h/?",
	"postgres://h/d?ssl=true", "postgres://h/d?sslmode=disable&ssl=true&ssl=false", "postgres://u%20v@h/", "postgres:///?host=/tmp&",
	"host=127.0.0.1 sslmode=disable",
	"postgres://h,[::1],h3?a=b", "host=h user=\t'x'y", "postgres://%75@h",
	"host=h entra_credential=managedidentity entra_client_id=00000000-0000-0000-0000-000000000000 a=b",
	"postgres://u@h?entra_credential=AzureCLI&entra_tenant_id=contoso.example",
	"postgres://u:p@h/d?entra_credential=none&sslmode=prefer", "host=h user=u password=p entra_credential=none",
	"host=h entra_scope='api://x/.default' entra_x=1", "postgres://h?entra%5fscope=&entra_scope=x",
	"host=/tmp user=u sslmode=disable", "host=s.postgres.database.azure.com,h user=u sslmode=require",
	"host=h require_auth=!password channel_binding=require", "host=h pool_max_conns=3",
	"host=h hostaddr=127.0.0.1", "postgres:///?hostaddr=::1,127.0.0.1", "Host=h;Port=1;Password=p", "postgres://a@b@h/d",
	"postgres://a/b@h/d", " postgres://h/d\n", "'host=h'",
	"host=h gssencmode=disable keepalives=0 keepalives_idle=1 ssl_min_protocol_version=TLSv1.3 " +
		"fallback_application_name=x client_encoding=auto sslcrl=x Ssl=1",
}

// withoutEnvironment removes the developer's environment variables from a fuzz test.
func withoutEnvironment(f *testing.F) {
	for _, name := range []string{"PGHOST", "PGUSER", "PGSSLMODE", "PGSERVICE", "PGPASSWORD"} {
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

// hostsAndPorts lists the hosts without the plaintext duplicates that pgx's default of prefer adds.
func hostsAndPorts(c *pgconn.Config) []pgconn.FallbackConfig {
	all := []pgconn.FallbackConfig{{Host: c.Host, Port: c.Port}}
	for _, f := range c.Fallbacks {
		if e := (pgconn.FallbackConfig{Host: f.Host, Port: f.Port}); e != all[len(all)-1] {
			all = append(all, e)
		}
	}
	return all
}

// FuzzUsername derives the user from two arbitrary tokens: one for the database and one for Azure
// Resource Manager.
func FuzzUsername(f *testing.F) {
	encode := base64.RawURLEncoding.EncodeToString
	unnamed := "e30." + encode([]byte(`{"oid":"o","tid":"t","appid":"a"}`)) + ".sig"
	for _, seed := range []string{"token", "a.b.c", "..", "e30.e30.", unnamed} {
		f.Add(seed, seed)
	}
	f.Add(
		unnamed,
		"e30."+encode([]byte(`{"oid":"o","tid":"t","xms_mirid":"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id"}`))+".",
	)
	f.Add("e30."+encode([]byte(`{"upn":"`+strings.Repeat("é", 40)+`","appid":"\u0000"}`))+".sig", unnamed)
	f.Fuzz(func(t *testing.T, value, management string) {
		i := newIdentity(identityKey{scope: "database", management: "management"}, sourceOf(credentialFunc(
			func(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
				answer := azcore.AccessToken{Token: value, ExpiresOn: time.Now().Add(time.Hour)}
				if o.Scopes[0] == "management" {
					answer.Token = management
				}
				return answer, nil
			})))
		_, user, _, err := i.get(t.Context(), token.Request{Log: quiet}, "")
		switch {
		case (user == "") == (err == nil):
			t.Errorf("user %q, error %v", user, err)
		case len(user) > 63 || strings.Contains(user, "\x00"):
			t.Errorf("derived %q", user)
		}
	})
}
