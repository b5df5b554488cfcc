package entrapg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// rejecting returns a pipeServer that sends every login an error response.
func rejecting(code, message string) *pipeServer {
	return &pipeServer{reject: func(string) *pgproto3.ErrorResponse {
		return &pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: message}
	}}
}

// failedLogins returns the errors of a login by database/sql and by pgxpool.
func failedLogins(t *testing.T, dsn string, opts ...entrapg.Option) map[string]error {
	t.Helper()
	db, _ := open(t, dsn, opts...)
	errs := map[string]error{
		"database/sql": db.PingContext(t.Context()),
		"pgxpool":      newPool(t, poolConfig(t, dsn, opts...)).Ping(t.Context()),
	}
	for name, err := range errs {
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
	}
	return errs
}

func TestExplain_ExplainsErrorsOfEveryLibrary(t *testing.T) {
	const expired = "The access token has expired. Acquire a new token and try again."
	s := rejecting("28000", expired)
	opts := []entrapg.Option{s.options(), entrapg.WithCredential(&numbered{life: time.Hour}), entrapg.WithLogger(nil)}
	errs := failedLogins(t, bubbleDSN, opts...)

	config, err := pgx.ParseConfig(bubbleDSN + " password=x")
	if err != nil {
		t.Fatal(err)
	}
	config.DialFunc = s.dial
	_, errs["pgx"] = pgx.ConnectConfig(t.Context(), config)
	var response *pgconn.PgError
	if !errors.As(errs["pgx"], &response) {
		t.Fatal(errs["pgx"])
	}
	errs["*pgconn.PgError"] = response

	for name, err := range errs {
		for form, err := range map[string]error{
			"itself": err, "wrapped": fmt.Errorf("load orders: %w", err),
			"joined": errors.Join(errors.New("load orders"), fmt.Errorf("connect: %w", err), context.Canceled),
		} {
			got := entrapg.Explain(err)
			if !strings.Contains(got, "clock") || strings.Contains(got, "Acquire") {
				t.Errorf("%s, %s: %q", name, form, got)
			}
		}
	}
	var login *entrapg.LoginError
	if !errors.As(errs["database/sql"], &login) || entrapg.Explain(errs["pgxpool"]) != login.Hint {
		t.Errorf("pgxpool: %q, want the hint of %v", entrapg.Explain(errs["pgxpool"]), errs["database/sql"])
	}
}

func TestExplain_ExplainsTokenErrors(t *testing.T) {
	failing := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{}, errors.New("ERROR: Please run 'az login' to setup account.")
	})
	for name, err := range failedLogins(t, bubbleDSN, entrapg.WithCredential(failing), entrapg.WithLogger(nil)) {
		var token *entrapg.TokenError
		if !errors.As(err, &token) || !strings.Contains(token.Hint, "run az login") {
			t.Errorf("%s: got %v, want a TokenError with a hint", name, err)
		} else if entrapg.Explain(err) != token.Hint || !strings.Contains(err.Error(), token.Hint) {
			t.Errorf("%s: %v: explained as %q", name, err, entrapg.Explain(err))
		}
	}
}

func TestExplain_ExplainsTargetSessionAttrs(t *testing.T) {
	for name, err := range failedLogins(
		t, server().DSN()+"&target_session_attrs=standby", entrapg.WithCredential(app(t, server())), entrapg.WithLogger(nil),
	) {
		if got := entrapg.Explain(err); !strings.Contains(got, "no host satisfies target_session_attrs") {
			t.Errorf("%s: %v: explained as %q", name, err, got)
		}
		if name == "database/sql" && !strings.HasSuffix(err.Error(), entrapg.Explain(err)) {
			t.Errorf("got %v", err)
		}
	}
}

func TestExplain_ReturnsNothingForOtherErrors(t *testing.T) {
	_, config := entrapg.PoolConfig("sslmode=prefer")
	for _, err := range []error{
		nil, errors.New("no such host"), context.DeadlineExceeded, sql.ErrNoRows, errors.Join(sql.ErrNoRows, nil),
		entrapg.ErrClosed, config, &entrapg.LoginError{}, &entrapg.TokenError{Err: context.Canceled},
		&pgconn.PgError{Severity: "ERROR", Code: "42501", Message: "permission denied for table orders"},
	} {
		if got := entrapg.Explain(err); got != "" {
			t.Errorf("%v: %q", err, got)
		}
	}
}

func TestExplain_ExplainsConnectionsThatFail(t *testing.T) {
	dsn, err := url.Parse(server().DSN())
	if err != nil {
		t.Fatal(err)
	}
	with := func(settings map[string]string) string {
		u, query := *dsn, dsn.Query()
		for name, value := range settings {
			query.Set(name, value)
		}
		u.RawQuery = query.Encode()
		return u.String()
	}
	lookup := func(err error) func(*pgx.ConnConfig) {
		return func(config *pgx.ConnConfig) {
			config.LookupFunc = func(context.Context, string) ([]string, error) { return nil, err }
		}
	}
	none := func(*pgx.ConnConfig) {}
	for name, test := range map[string]struct {
		dsn    string
		change func(*pgx.ConnConfig)
		want   string
	}{
		"no server":    {"host=127.0.0.1 port=1 user=app sslmode=disable", none, "no server listens"},
		"unknown root": {with(map[string]string{"user": "app", "sslrootcert": "system"}), none, "does not trust"},
		"another name": {
			strings.Replace(with(map[string]string{"user": "app", "hostaddr": "127.0.0.1"}), dsn.Hostname(), "db.example.com", 1),
			none, "another name",
		},
		"unknown name":  {"host=db.example.com user=app", lookup(&net.DNSError{IsNotFound: true}), "does not exist"},
		"no DNS server": {"host=db.example.com user=app", lookup(&net.DNSError{IsTimeout: true}), "cannot be resolved"},
		"silence":       {"host=db.example.com user=app", lookup(os.ErrDeadlineExceeded), "does not answer"},
	} {
		errs := failedLogins(t, test.dsn,
			entrapg.WithConnConfig(test.change), entrapg.WithCredential(&numbered{life: time.Hour}), entrapg.WithLogger(nil))
		for library, err := range errs {
			var login *entrapg.LoginError
			if got := entrapg.Explain(err); !strings.Contains(got, test.want) || errors.As(err, &login) ||
				library == "database/sql" && !strings.HasSuffix(err.Error(), got) {
				t.Errorf("%s, %s: %v: explained as %q", name, library, err, got)
			}
		}
	}
}

func TestExplain_DistinguishesStageOfTimeout(t *testing.T) {
	s := start(t, entrapgtest.Config{Upstream: server().AdminDSN()})
	s.SetFaults(entrapgtest.Faults{LoginDelay: time.Hour})
	for name, err := range failedLogins(t, s.DSN()+"&connect_timeout=1", entrapg.WithCredential(app(t, s)), entrapg.WithLogger(nil)) {
		if got := entrapg.Explain(err); !strings.Contains(got, "login took too long") || strings.Contains(got, "firewall") {
			t.Errorf("%s: %v: explained as %q", name, err, got)
		}
	}
}

func TestExplain_ExplainsServersWithoutTLSOrProtocol(t *testing.T) {
	s := start(t, entrapgtest.Config{Upstream: server().AdminDSN()})
	for name, test := range map[string]struct {
		faults         entrapgtest.Faults
		settings, want string
	}{
		"no TLS":                     {entrapgtest.Faults{NoTLS: true}, "", "sslmode=disable"},
		"no TLS, with a password":    {entrapgtest.Faults{NoTLS: true}, "&user=app&password=x&entra_credential=none", "sslmode=disable"},
		"an older protocol's server": {entrapgtest.Faults{}, "&min_protocol_version=3.2", "min_protocol_version"},
	} {
		s.SetFaults(test.faults)
		var opts []entrapg.Option
		if !strings.Contains(test.settings, "entra_credential") {
			opts = append(opts, entrapg.WithCredential(app(t, s)))
		}
		for library, err := range failedLogins(t, s.DSN()+test.settings, append(opts, entrapg.WithLogger(nil))...) {
			if got := entrapg.Explain(err); !strings.Contains(got, test.want) {
				t.Errorf("%s, %s: %v: explained as %q", name, library, err, got)
			}
		}
	}
}

func TestExplain_NamesOriginOfUser(t *testing.T) {
	t.Setenv("PGUSER", "nobody")
	p := app(t, server())
	for name, err := range failedLogins(t, server().DSN("user"), entrapg.WithCredential(p), entrapg.WithLogger(nil)) {
		if got := entrapg.Explain(err); !strings.HasSuffix(got, "; the user comes from PGUSER") {
			t.Errorf("%s: %v: explained as %q", name, err, got)
		}
	}
	for name, err := range failedLogins(t, server().DSN()+"&user=none", entrapg.WithCredential(p), entrapg.WithLogger(nil)) {
		if got := entrapg.Explain(err); got == "" || strings.Contains(got, "comes from") {
			t.Errorf("%s: %v: explained as %q", name, err, got)
		}
	}
}

func TestExplain_ExplainsAllOfRejectionThatCannotBeRetried(t *testing.T) {
	s := start(t, entrapgtest.Config{Upstream: server().AdminDSN()})
	db, _ := open(t, s.DSN(), entrapg.WithCredential(app(t, s)), entrapg.WithLogger(nil))
	db.SetMaxIdleConns(0)
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeTokens(); err != nil {
		t.Fatal(err)
	}
	s.SetFaults(entrapgtest.Faults{EntraDown: true})
	err := db.PingContext(t.Context())
	for _, want := range []string{"revoked", "try again"} {
		if got := entrapg.Explain(err); !strings.Contains(got, want) {
			t.Errorf("%v: explained as %q, want %q in it", err, got, want)
		}
	}
}

func TestExplain_ExplainsStatementsThatPoolerBreaks(t *testing.T) {
	err := fmt.Errorf(
		"load orders: %w",
		&pgconn.PgError{Severity: "ERROR", Code: "26000", Message: `prepared statement "stmtcache_7" does not exist`},
	)
	if got := entrapg.Explain(err); !strings.Contains(got, "default_query_exec_mode=exec") {
		t.Errorf("got %q", got)
	}
}

func TestExplain_RecognizesGuests(t *testing.T) {
	for _, account := range []string{"bob@fabrikam.example", "live.com#carol@outlook.example", "mail#dan@shop.example"} {
		guest := server().Tenant.NewGuest(account)
		for name, err := range failedLogins(t, server().DSN(), entrapg.WithCredential(guest), entrapg.WithLogger(nil)) {
			if got := entrapg.Explain(err); !strings.Contains(got, "#EXT#") {
				t.Errorf("%s, %s: %v\ngot %q", account, name, err, got)
			}
		}
	}
	member := server().Tenant.NewUser("nobody@contoso.example")
	for name, err := range failedLogins(t, server().DSN(), entrapg.WithCredential(member), entrapg.WithLogger(nil)) {
		if got := entrapg.Explain(err); strings.Contains(got, "#EXT#") ||
			!strings.Contains(got, "pgaadauth_create_principal") {
			t.Errorf("a member, %s: %v\ngot %q", name, err, got)
		}
	}
}

func TestExplain_RecognizesUserOfSingleServer(t *testing.T) {
	p := app(t, server())
	for name, err := range failedLogins(t, server().DSN()+"&user="+p.Name+"@shop", entrapg.WithCredential(p),
		entrapg.WithLogger(nil)) {
		if got := entrapg.Explain(err); !strings.Contains(got, "Single Server") {
			t.Errorf("%s: %v\ngot %q", name, err, got)
		}
	}
}

func TestExplain_NamesScopeOfHostAndNotOfServer(t *testing.T) {
	const (
		cosmosHost  = "c.shop.postgres.cosmos.azure.com"
		cosmosScope = "https://token.postgres.cosmos.azure.com/.default"
	)
	for _, test := range []struct{ host, named, scope string }{
		{azureName, "https://token.postgres.cosmos.azure.com", databaseScope},
		{azureGov, "https://mallory.example", "https://ossrdbms-aad.database.usgovcloudapi.net/.default"},
		{cosmosHost, "%s", cosmosScope},
		{"db.contoso.com", "https://token.postgres.cosmos.azure.com", ""},
	} {
		s := &tlsServer{identity: systemAuthority().issue(test.host)}
		s.reject = rejecting(
			"28000",
			`The access token does not have a valid audience claim. Please acquire a new token for the resource "`+test.named+`".`,
		).reject
		opts := []entrapg.Option{s.options(), entrapg.WithCredential(&numbered{life: time.Hour}), entrapg.WithLogger(nil)}
		for name, err := range failedLogins(t, "user=app host="+test.host, opts...) {
			got := entrapg.Explain(err)
			if !strings.Contains(got, "another service or cloud") || !strings.Contains(got, test.scope) {
				t.Errorf("%s, %s: %v\ngot %q, want %q in it", test.host, name, err, got, test.scope)
			}
			if test.scope == "" && strings.Contains(got, "https://") || strings.Contains(got, "mallory") {
				t.Errorf("%s, %s: got %q", test.host, name, got)
			}
		}
	}
}

func TestExplain_MentionsFailedLookup(t *testing.T) {
	const lookup = "AADSTS53003: Access has been blocked by Conditional Access policies."
	for name, claims := range map[string]map[string]any{
		"ID": {"appid": "app", "oid": "7d", "idtyp": "app"}, "name": {"app_displayname": "app", "oid": "7d", "idtyp": "app"},
	} {
		credential := credentialFunc(func(_ context.Context, scope string) (azcore.AccessToken, error) {
			if scope != databaseScope {
				return azcore.AccessToken{}, errors.New(lookup)
			}
			return azcore.AccessToken{Token: jwt(claims), ExpiresOn: time.Now().Add(time.Hour)}, nil
		})
		s := rejecting("28P01", `password authentication failed for user "app"`)
		opts := []entrapg.Option{s.options(), entrapg.WithCredential(&credential), entrapg.WithLogger(nil)}
		for library, err := range failedLogins(t, "host=127.0.0.1 sslmode=disable", opts...) {
			got := entrapg.Explain(err)
			if !strings.Contains(got, "Azure Resource Manager") || !strings.Contains(got, "conditional access") {
				t.Errorf("%s, %s: %v\ngot %q", name, library, err, got)
			}
			var login *entrapg.LoginError
			var token *entrapg.TokenError
			if library != "database/sql" {
				continue
			}
			if !errors.As(err, &login) || errors.As(err, &token) {
				t.Errorf("%s: got %v, want a LoginError and no TokenError", name, err)
			}
			for _, part := range []string{lookup, "https://management.azure.com/.default", "password authentication failed"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: got %v, want %q in it", name, err, part)
				}
			}
		}
		// A user that is set was not looked up, although the connectors share the token.
		opts = append(opts, entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.User = "app" }))
		for library, err := range failedLogins(t, "host=127.0.0.1 sslmode=disable", opts...) {
			if got := entrapg.Explain(err); strings.Contains(err.Error(), lookup) || strings.Contains(got, "Resource Manager") {
				t.Errorf("%s, %s: %v\ngot %q", name, library, err, got)
			}
		}
	}
}

func TestExplain_DoesNotMentionTokensAfterPasswordLogin(t *testing.T) {
	s := rejecting("28P01", `password authentication failed for user "app"`)
	for name, err := range failedLogins(t, bubbleDSN+" password=x entra_credential=none", s.options()) {
		if got := entrapg.Explain(err); !strings.Contains(got, "check the password") {
			t.Errorf("%s: %v\ngot %q", name, err, got)
		}
	}
}

func TestErrors_AnswersOfEntraHaveHints(t *testing.T) {
	tenant := server().Tenant
	p := tenant.NewServicePrincipal("deployer of " + t.Name())
	const stranger = "99999999-2222-3333-4444-555555555555"
	for _, test := range []struct {
		tenantID, clientID, secret, scope string
		code, hint                        string
	}{
		{tenant.ID, p.ClientID, "guess", databaseScope, "AADSTS7000215", "secret"},
		{tenant.ID, stranger, p.ClientSecret, databaseScope, "AADSTS700016", "AZURE_CLIENT_ID"},
		{stranger, p.ClientID, p.ClientSecret, databaseScope, "AADSTS90002", "AZURE_TENANT_ID"},
		{tenant.ID, p.ClientID, p.ClientSecret, strings.TrimSuffix(databaseScope, "/.default"), "AADSTS70011", "/.default"},
	} {
		credential, err := azidentity.NewClientSecretCredential(test.tenantID, test.clientID, test.secret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: tenant.ClientOptions(), DisableInstanceDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		err = connect(t, entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(credential), entrapg.WithScope(test.scope)))
		var token *entrapg.TokenError
		if !errors.As(err, &token) || !strings.Contains(err.Error(), test.code) || !strings.Contains(token.Hint, test.hint) {
			t.Errorf("got %v, want a TokenError with %s and a hint with %q", err, test.code, test.hint)
		}
	}
	s := start(t, entrapgtest.Config{Upstream: server().AdminDSN()})
	s.SetFaults(entrapgtest.Faults{EntraDown: true})
	credential := s.Tenant.NewUserAssignedIdentity("x")
	err := connect(t, entrapg.NewConnector(s.DSN(), entrapg.WithCredential(credential)))
	if got := entrapg.Explain(err); !strings.Contains(got, "try again") {
		t.Errorf("%v: explained as %q", err, got)
	}
}

// A foreignError is an error of another driver, such as lib/pq.
type foreignError struct{ state, text string }

func (e foreignError) Error() string    { return "pq: " + e.text }
func (e foreignError) SQLState() string { return e.state }

func TestExplain_ExplainsErrorsOfOtherDrivers(t *testing.T) {
	err := fmt.Errorf("query: %w",
		foreignError{"28000", "The access token has expired. Acquire a new token and try again."})
	if got := entrapg.Explain(err); !strings.Contains(got, "clock") {
		t.Errorf("got %q", got)
	}
	if got := entrapg.Explain(foreignError{"23505", "duplicate key"}); got != "" {
		t.Errorf("got %q for an error that is not about the login", got)
	}
}

func TestExplain_AcceptsNilAndTypedNilErrors(t *testing.T) {
	for _, err := range []error{
		nil, (*entrapg.LoginError)(nil), (*entrapg.TokenError)(nil), (*pgconn.PgError)(nil),
		(*pgconn.ConnectError)(nil), &pgconn.ConnectError{},
		errors.Join(nil, (*pgconn.PgError)(nil)), fmt.Errorf("%w", (*pgconn.ConnectError)(nil)),
	} {
		if got := entrapg.Explain(err); got != "" {
			t.Errorf("%T: got %q", err, got)
		}
	}
}

func TestExplain_DoesNotCallDialerOfProgram(t *testing.T) {
	config := parse(t, bubbleDSN)
	dials := 0
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		dials++
		return nil, errors.New("no network")
	}
	_, err := pgx.ConnectConfig(t.Context(), config)
	if before := dials; err == nil || entrapg.Explain(err) != "" || dials != before {
		t.Errorf("%v: %d more dials", err, dials-before)
	}
}
