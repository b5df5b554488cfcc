package entrapg_test

import (
	"context"
	"database/sql/driver"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// rendered collects everything that could be looked at, in every form that fmt
// and encoding/json have.
type rendered struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *rendered) add(values ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range values {
		fmt.Fprintf(&r.text, "%v\n%+v\n%#v\n%s\n%q\n", v, v, v, v, v)
		if b, err := json.Marshal(v); err == nil {
			r.text.Write(b)
		}
	}
}

func (r *rendered) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

// addError adds an error and all its causes, each with what it carries.
func (r *rendered) addError(err error) {
	if err == nil {
		return
	}
	r.add(err)
	if e, ok := err.(*pgconn.ConnectError); ok { //nolint:errorlint // as below
		r.add(*e.Config)
	}
	switch e := err.(type) { //nolint:errorlint // every cause is looked at, one after the other
	case interface{ Unwrap() error }:
		r.addError(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range e.Unwrap() {
			r.addError(e)
		}
	}
}

// hides fails the test where anything shows a secret, or 32 characters of it, as
// it is or encoded.
func (r *rendered) hides(t *testing.T, secrets ...string) {
	t.Helper()
	const piece = 32
	pieces := map[string]int{}
	for n, secret := range secrets {
		raw := []byte(secret)
		for _, form := range []string{
			secret, url.QueryEscape(secret), hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)),
			base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw), strings.Trim(fmt.Sprintf("%d", raw), "[]"),
		} {
			for i := range max(1, len(form)-piece+1) {
				pieces[form[i:min(i+piece, len(form))]] = n
			}
		}
	}
	lengths := map[int]bool{}
	for p := range pieces {
		lengths[len(p)] = true
	}
	text := r.text.String()
	for length := range lengths {
		for i := range max(0, len(text)-length+1) {
			if n, shows := pieces[text[i:i+length]]; shows {
				t.Fatalf("secret %d shows: …%s…", n, text[max(0, i-400):min(len(text), i+length)])
			}
		}
	}
}

// tracer looks at all that pgx gives a tracer. It holds a function, lest what
// is rendered has what has been rendered in it.
type tracer struct{ add func(...any) }

func (tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (t tracer) TraceConnectStart(ctx context.Context, data pgx.TraceConnectStartData) context.Context {
	t.add(data, *data.ConnConfig, data.ConnConfig.Config)
	return ctx
}

func (t tracer) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	t.add(data, data.Err)
	if data.Conn != nil && data.Err == nil {
		t.add(data.Conn.Config(), *data.Conn.Config(), *data.Conn)
	}
}

func TestNothingThatCanBeRenderedShowsAToken(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	p := app(t, s)
	var mu sync.Mutex
	var tokens []string
	canary := credentialFunc(func(ctx context.Context, scope string) (azcore.AccessToken, error) {
		token, err := p.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			tokens = append(tokens, token.Token)
		}
		return token, err
	})
	out := &rendered{}
	everything := &slog.HandlerOptions{Level: slog.Level(-100), AddSource: true}
	opts := []entrapg.Option{
		entrapg.WithCredential(canary),
		entrapg.WithLogger(slog.New(slog.NewMultiHandler(slog.NewTextHandler(out, everything), slog.NewJSONHandler(out, everything)))),
		entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.Tracer = tracer{out.add} }),
	}
	c := entrapg.NewConnector(s.DSN(), opts...)
	defer c.Close()
	config := poolConfig(t, s.DSN(), opts...)
	pool := newPool(t, config)

	successes := 0
	try := func(faults entrapgtest.Faults) {
		s.SetFaults(faults)
		limited := func(do func(context.Context)) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			do(ctx)
		}
		var conn driver.Conn
		var err error
		limited(func(ctx context.Context) { conn, err = c.Connect(ctx) })
		out.addError(err)
		if err == nil {
			successes++
			pgxConn := conn.(*stdlib.Conn).Conn()
			out.add(conn, *conn.(*stdlib.Conn), pgxConn, pgxConn.Config(), *pgxConn.Config())
			conn.Close()
		}
		pool.Reset()
		limited(func(ctx context.Context) { err = pool.Ping(ctx) })
		if faults.LoginDelay > 0 || faults.CutLogin > entrapgtest.AtConnect {
			out.add(err) // but not what it carries: PoolConfig says why
		} else {
			out.addError(err)
		}
		// The structs themselves, as a debugger or a careless log call has them.
		out.add(c, c.Stats(), config, *config, config.ConnConfig, *config.ConnConfig)
	}
	try(entrapgtest.Faults{})
	try(entrapgtest.Faults{LoginDelay: 4 * time.Second})
	for stage := range entrapgtest.AfterPassword + 1 {
		try(entrapgtest.Faults{CutLogin: stage})
	}
	try(entrapgtest.Faults{NoTLS: true})
	if err := s.RevokeTokens(); err != nil {
		t.Fatal(err)
	}
	try(entrapgtest.Faults{EntraDown: true})
	try(entrapgtest.Faults{})
	wrong := s.Tenant.NewUser("mallory@contoso.example")
	createRole(t, s, p.Name, wrong) // from now on every token is the wrong one
	try(entrapgtest.Faults{})
	for _, login := range s.Logins() {
		out.add(login)
	}
	pool.Close()
	if err := s.Close(); err != nil { // what is rendered must not change meanwhile
		t.Fatal(err)
	}
	out.add(s, p)

	if successes < 3 {
		t.Errorf("only %d logins succeeded, so that little was looked at", successes)
	}
	if len(tokens) < 4 {
		t.Fatalf("only %d tokens were made", len(tokens))
	}
	out.hides(t, tokens...)
}

// TestFailureOfACredentialShowsNeitherTokenNorSecret tries the ways in which a
// credential fails, one that blows up with the token in its hands among them.
func TestFailureOfACredentialShowsNeitherTokenNorSecret(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	p := s.Tenant.NewServicePrincipal("secretive")
	nobody := s.Tenant.NewServicePrincipal("nobody")
	nobody.Claims = map[string]any{"appid": nil, "app_displayname": nil}
	withSecret := func(secret string) azcore.TokenCredential {
		options := &azidentity.ClientSecretCredentialOptions{ClientOptions: s.Tenant.ClientOptions(), DisableInstanceDiscovery: true}
		options.Retry.MaxRetries = -1
		credential, err := azidentity.NewClientSecretCredential(s.Tenant.ID, p.ClientID, secret, options)
		if err != nil {
			t.Fatal(err)
		}
		return credential
	}
	token, err := p.GetToken(t.Context(), tokenOptions("https://ossrdbms-aad.database.windows.net/.default"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := strings.Repeat("wrong-secret-", 4)
	does := func(answer azcore.AccessToken, err error) azcore.TokenCredential {
		return credentialFunc(func(context.Context, string) (azcore.AccessToken, error) { return answer, err })
	}

	out := &rendered{}
	for name, failure := range map[string]struct {
		credential azcore.TokenCredential
		faults     entrapgtest.Faults
	}{
		"wrong secret": {credential: withSecret(wrong)},
		"throttled":    {withSecret(p.ClientSecret), entrapgtest.Faults{Entra: entrapgtest.EntraThrottles}},
		"failing":      {withSecret(p.ClientSecret), entrapgtest.Faults{Entra: entrapgtest.EntraFails}},
		"garbled":      {withSecret(p.ClientSecret), entrapgtest.Faults{Entra: entrapgtest.EntraGarbles}},
		"reset":        {withSecret(p.ClientSecret), entrapgtest.Faults{Entra: entrapgtest.EntraResets}},
		"down":         {withSecret(p.ClientSecret), entrapgtest.Faults{EntraDown: true}},
		"expired":      {credential: does(azcore.AccessToken{Token: token.Token, ExpiresOn: time.Now().Add(-time.Hour)}, nil)},
		"no expiry":    {credential: does(azcore.AccessToken{Token: token.Token}, nil)},
		"quoted":       {credential: does(azcore.AccessToken{Token: `"` + token.Token + `"`, ExpiresOn: time.Now().Add(time.Hour)}, nil)},
		"too long":     {credential: does(azcore.AccessToken{Token: strings.Repeat(token.Token, 100), ExpiresOn: time.Now().Add(time.Hour)}, nil)},
		"talkative":    {credential: does(azcore.AccessToken{}, fmt.Errorf("cannot read {%q}", token.Token))},
		"nameless":     {credential: nobody},
		"panicking": {credential: credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
			panic("no room for " + token.Token)
		})},
		"panicking with the answer": {credential: credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
			panic(token)
		})},
	} {
		s.SetFaults(failure.faults)
		c := entrapg.NewConnector(s.DSN(), entrapg.WithCredential(failure.credential), entrapg.WithLogger(slog.New(slog.NewTextHandler(out, nil))))
		err := connect(t, c)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		out.addError(err)
		out.add(c, c.Stats())
		c.Close()
	}
	out.hides(t, token.Token, p.ClientSecret, wrong)
}

// TestPasswordOfPostgreSQLsOwnShowsNowhere leaves out pgx's whole configuration,
// which keeps the DSN: SECURITY.md says so.
func TestPasswordOfPostgreSQLsOwnShowsNowhere(t *testing.T) {
	const password = "correct-horse-battery-staple-and-some-more"
	localRole(t, "secretive", password)
	out := &rendered{}
	for _, dsn := range []string{
		withLogin(t, server().DSN(), "secretive", password, "&entra_credential=none"),
		withLogin(t, server().DSN(), "missing", password, "&entra_credential=none"),
		withLogin(t, server().DSN(), "secretive", password, "&entra_credential=none&entra_x=1"),
		withLogin(t, server().DSN(), "secretive", password, "&entra_credential=none&sslmode=x"),
		withLogin(t, server().DSN(), "secretive", password, ""), // an error
		"host=127.0.0.1 port=1 user=u sslmode=disable entra_credential=none password=" + password,
		"host=127.0.0.1 user=u entra_credential=none password='" + password,
		"postgres://u:" + password + "@[::1/?entra_credential=none",
	} {
		c := entrapg.NewConnector(dsn)
		conn, err := c.Connect(t.Context())
		out.addError(err)
		if err == nil {
			out.add(conn.(*stdlib.Conn).Conn().Config().Config)
			conn.Close()
		}
		out.add(c, c.Stats())
		c.Close()
		config, err := entrapg.PoolConfig(dsn)
		out.addError(err)
		if err == nil {
			out.add(config.ConnConfig.Config)
		}
	}
	out.hides(t, password)
}

func TestServerThatRepeatsTheTokenInItsErrorIsNotQuoted(t *testing.T) {
	value := strings.Repeat("0123456789abcdef", 300) // of which servers may repeat a part
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: value, ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	for name, repeated := range map[string]string{"whole": value, "cut off": value[:4095], "the end": value[100:]} {
		for _, severity := range []string{"FATAL", "ERROR"} {
			s := &pipeServer{refuse: func(string) *pgproto3.ErrorResponse {
				return &pgproto3.ErrorResponse{Severity: severity, Code: "28000", Message: "who is " + repeated + "?", Detail: repeated, Hint: repeated, Where: repeated}
			}}
			out := &rendered{}
			err := connect(t, entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential)))
			out.addError(err)
			var login *entrapg.LoginError
			if !errors.As(err, &login) || !strings.Contains(err.Error(), "who is [token]?") {
				t.Errorf("%s: got %v, want a LoginError without the token", name, err)
			}
			out.addError(newPool(t, poolConfig(t, bubbleDSN, s.options(), entrapg.WithCredential(credential))).Ping(t.Context()))
			if strings.Contains(out.text.String(), value[:32]) {
				t.Errorf("%s, %s: the token shows", name, severity)
			}
		}
	}
}

func TestConfigurationOfAnOpenConnectionHandsOutNoToken(t *testing.T) {
	s := &pipeServer{}
	c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(&numbered{life: time.Hour}))
	conn, err := c.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	config := conn.(*stdlib.Conn).Conn().Config()
	config.Password = "of the caller"
	var all sync.WaitGroup
	for range 4 { // at once: -race looks on
		all.Go(func() {
			other, err := pgx.ConnectConfig(t.Context(), config)
			if err != nil {
				t.Error(err)
				return
			}
			other.Close(context.Background())
		})
	}
	all.Wait()
	if got := s.passwords(); len(got) != 5 || got[0] != "token-1" || got[1] != "of the caller" || got[4] != "of the caller" {
		t.Errorf("passwords sent: %q", got)
	}
}

func TestCredentialThatShowsItsTokenInAnErrorIsNotQuoted(t *testing.T) {
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: "canary"}, errors.New("cannot keep canary")
	})
	var token *entrapg.TokenError
	if err := connect(t, entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(credential))); !errors.As(err, &token) || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v", err)
	}
}

func TestAnswerThatCannotBeReadIsNotQuotedForTheTokenInIt(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	s.SetFaults(entrapgtest.Faults{Entra: entrapgtest.EntraGarbles})
	for name, credential := range map[string]azcore.TokenCredential{
		"managed identity": virtualMachine(t, s, s.Tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm-garbled")),
		"client assertion": assertion(t, s, s.Tenant.NewServicePrincipal("garbled")),
	} {
		c := entrapg.NewConnector(s.DSN(), entrapg.WithCredential(credential))
		defer c.Close()
		out := &rendered{}
		err := connect(t, c)
		out.addError(err)
		var token *entrapg.TokenError
		if !errors.As(err, &token) || strings.Contains(out.text.String(), "eyJ") {
			t.Errorf("%s: got %v, want a TokenError without the token's beginning", name, err)
		}
	}
}
