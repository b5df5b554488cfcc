package entrapg_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
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
	var log rendered
	opts := []entrapg.Option{
		entrapg.WithCredential(canary),
		entrapg.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.Level(-100)}))),
		entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.Tracer = tracer{out.add} }),
	}
	c := entrapg.NewConnector(s.DSN(), opts...)
	defer c.Close()
	config := poolConfig(t, s.DSN(), opts...)
	pool := newPool(t, config)

	try := func(faults entrapgtest.Faults) {
		s.SetFaults(faults)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		conn, err := c.Connect(ctx)
		out.addError(err)
		if err == nil {
			pgxConn := conn.(*stdlib.Conn).Conn()
			out.add(conn, *conn.(*stdlib.Conn), pgxConn, pgxConn.Config(), *pgxConn.Config())
			conn.Close()
		}
		pool.Reset()
		err = pool.Ping(ctx)
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
	out.add(s, p)

	if len(tokens) < 4 {
		t.Fatalf("only %d tokens were made", len(tokens))
	}
	text := out.text.String() + log.text.String()
	for i, token := range tokens {
		signature := token[strings.LastIndexByte(token, '.')+1:]
		if at := strings.Index(text, signature); at >= 0 {
			from := max(0, at-len(token)-400)
			t.Fatalf("token %d shows: …%s…", i, text[from:at])
		}
	}
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
