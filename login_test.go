package entrapg_test

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

func TestLogin_EndlessOrMalformedRepliesEndLogin(t *testing.T) {
	const large = 1 << 30
	huge := func(kind byte, n uint32) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind}, n), make([]byte, 64)...)
	}
	for name, attack := range map[string]attack{
		"notices": {flood: func(int) []byte {
			return encode(&pgproto3.NoticeResponse{Message: strings.Repeat("x", 1000)})
		}},
		"parameters": {flood: func(n int) []byte {
			return encode(&pgproto3.ParameterStatus{Name: fmt.Sprint(n), Value: "on"})
		}},
		"keys":                    {flood: func(int) []byte { return encode(&pgproto3.BackendKeyData{SecretKey: make([]byte, 200)}) }},
		"SASL":                    {flood: func(int) []byte { return encode(&pgproto3.AuthenticationSASLContinue{Data: []byte("r=")}) }},
		"requests for a password": {flood: func(int) []byte { return cleartextRequest }},
		"older protocols":         {flood: func(int) []byte { return encode(&pgproto3.NegotiateProtocolVersion{}) }},
		"a huge notice":           {reply: huge('N', large-10)},
		"a huge error":            {reply: huge('E', large-10)},
		"a huge challenge":        {reply: huge('R', large-10)},
		"a long notice":           {reply: huge('N', 2<<20)},
		"a negative length":       {reply: huge('R', 1<<31)},
		"a length below 4":        {reply: huge('R', 3)},
		"many protocol options":   {reply: append([]byte{'v', 0, 0, 0, 12, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}, 0)},
		"an unknown message":      {reply: huge('?', 8)},
		"an unknown challenge":    {reply: huge('R', 8)[:9:9]},
		"half an error":           {reply: []byte("E\x00\x00\x00\x08SFAT")},
		"rows":                    {reply: encode(&pgproto3.DataRow{Values: [][]byte{nil}})},
		"ready at once":           {reply: encode(&pgproto3.ReadyForQuery{TxStatus: 'I'})},
		"no reply":                {},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImpostor(t, attack)
			long := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) { // as long as a user's
				return azcore.AccessToken{Token: strings.Repeat("x", 2000), ExpiresOn: time.Now().Add(time.Hour)}, nil
			})
			c := entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(long), i.option())
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second) // before pgx times out
			defer cancel()
			if name == "no reply" {
				ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.Connect(ctx)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("the login succeeded")
			}
			if name == "no reply" && !errors.Is(err, context.DeadlineExceeded) || name != "no reply" && ctx.Err() != nil {
				t.Errorf("got %v", err)
			}
			if made := after.TotalAlloc - before.TotalAlloc; made > 64<<20 { // by both sides
				t.Errorf("%d bytes were allocated", made)
			}
		})
	}
}

func TestLogin_ServerThatAlwaysRejectsCausesFewRetries(t *testing.T) {
	i := newImpostor(t, attack{reply: noHBAEntry})
	c := entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(&numbered{life: time.Hour}),
		entrapg.WithLogger(nil), i.option())
	defer c.Close()
	const connects = 50
	for range connects {
		var login *entrapg.LoginError
		if err := connect(t, c); !errors.As(err, &login) {
			t.Fatalf("got %v, want a LoginError", err)
		}
	}
	if s := c.Stats(); s.LoginsRejected > connects+4 || s.TokenRequests > 8 {
		t.Errorf("%d connects: %d logins, %d tokens", connects, s.LoginsRejected, s.TokenRequests)
	}
}

func TestLogin_OtherAuthMethodHasHint(t *testing.T) {
	for name, hint := range map[string]string{"MD5": "mapped", "SCRAM": "mapped", "trust": "entra_credential=none"} {
		n := slices.IndexFunc(attacks, func(a namedAttack) bool { return a.name == name })
		i := newImpostor(t, attacks[n].attack)
		c := entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(&numbered{life: time.Hour}), i.option())
		defer c.Close()
		var login *entrapg.LoginError
		if err := connect(t, c); !errors.As(err, &login) || !strings.Contains(login.Hint, hint) {
			t.Errorf("%s: got %v, want a LoginError with a hint that contains %q", name, err, hint)
		}
		if s := c.Stats(); s.LoginsRejected > 0 || s.TokenExpiry.IsZero() {
			t.Errorf("%s: a valid token was counted as rejected: %+v", name, s)
		}
	}
	// require_auth can allow such a server.
	i := newImpostor(t, attack{reply: loginOK})
	mustConnect(t, entrapg.NewConnector(bubbleDSN+" require_auth=none,password",
		entrapg.WithCredential(&numbered{life: time.Hour}), i.option()))
}

func TestLogin_SizeLimitDoesNotApplyToSession(t *testing.T) {
	db, _ := open(t, server().DSN(), entrapg.WithCredential(app(t, server())))
	var long string
	if err := db.QueryRowContext(t.Context(), "select repeat('x', 3000000)").Scan(&long); err != nil ||
		len(long) != 3_000_000 {
		t.Errorf("%d bytes, error %v", len(long), err)
	}
}

func TestLogin_CutAtAnyStageIsErrorAndNextLoginSucceeds(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	db, c := open(t, s.DSN(), entrapg.WithCredential(app(t, s)))
	db.SetMaxIdleConns(0)
	for _, stage := range []entrapgtest.Stage{
		entrapgtest.AtConnect, entrapgtest.AfterTLS, entrapgtest.AfterStartup,
		entrapgtest.AfterPassword,
	} {
		s.SetFaults(entrapgtest.Faults{CutLogin: stage})
		err := db.PingContext(t.Context())
		var connect *pgconn.ConnectError
		if !errors.As(err, &connect) {
			t.Errorf("stage %d: got %v, want a ConnectError", stage, err)
		} else if connect.Config.Password != "" {
			t.Errorf("stage %d: the error contains the token", stage)
		}
		s.SetFaults(entrapgtest.Faults{})
		if err := db.PingContext(t.Context()); err != nil {
			t.Errorf("after stage %d: %v", stage, err)
		}
	}
	if stats := c.Stats(); stats.LoginRetries != 0 || stats.Logins != 4 {
		t.Errorf("Stats: %+v", stats)
	}
}

// Old versions of PgBouncer close the connection when they get a long token. It
// is a race whether their error arrives before the connection is reset.
func TestLogin_ConnectionThatBreaksOnTokenHasHintAboutPgBouncer(t *testing.T) {
	const ordinary = 5432
	for _, test := range []struct {
		name  string
		token int // length
		port  uint16
		flood bool
		hint  bool
	}{
		{name: "a long token", token: 3000, port: ordinary, hint: true},
		{name: "PgBouncer's port", token: 1000, port: 6432, hint: true},
		{name: "a short token", token: 1000, port: ordinary},
		{name: "a long token, and too many messages", token: 3000, port: ordinary, flood: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := newScriptedServer(t, func(l *scriptedLogin) {
				l.send(&pgproto3.AuthenticationCleartextPassword{})
				if test.flood {
					l.receive()
					for range 10 {
						l.send(&pgproto3.AuthenticationCleartextPassword{})
					}
					io.Copy(io.Discard, l)
					return
				}
				io.ReadFull(l, make([]byte, 5)) // does not read the rest, so that closing resets the connection
				l.Conn.(*net.TCPConn).SetLinger(0)
				l.Close()
			})
			dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=app sslmode=disable", test.port)
			dial := entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
				config.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", server.port))
				}
			})
			credential := entrapg.WithCredential(credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
				return azcore.AccessToken{Token: strings.Repeat("x", test.token), ExpiresOn: time.Now().Add(time.Hour)}, nil
			}))
			connector := entrapg.NewConnector(dsn, dial, credential)
			defer connector.Close()
			_, err := connector.Connect(t.Context())
			check := func(err error) {
				t.Helper()
				if hint := entrapg.Explain(err); err == nil || strings.Contains(hint, "PgBouncer") != test.hint ||
					!test.hint && hint != "" {
					t.Errorf("%v: explained as %q", err, hint)
				}
			}
			check(err)
			var login *entrapg.LoginError
			if errors.As(err, &login) != test.hint {
				t.Errorf("got %T, want a LoginError: %t", err, test.hint)
			}
			config, err := entrapg.PoolConfig(dsn, dial, credential)
			if err != nil {
				t.Fatal(err)
			}
			check(newPool(t, config).Ping(t.Context()))
		})
	}
}

func TestLogin_CallerDeadlineEndsWaitForServer(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	db, _ := open(t, s.DSN(), entrapg.WithCredential(app(t, s)))
	s.SetFaults(entrapgtest.Faults{LoginDelay: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := db.PingContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the caller's deadline", err)
	}
}

// net.Dialer times out when the deadline has passed, which can be before the context is done.
func TestLogin_DialThatTimesOutIsCallerDeadline(t *testing.T) {
	for name, timeout := range map[string]error{
		"dial":   &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded},
		"lookup": &net.DNSError{Name: "db.example.com", IsTimeout: true},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // which timer fires first is random
				synctest.Test(t, func(t *testing.T) {
					expire := func(ctx context.Context) error {
						deadline, _ := ctx.Deadline()
						time.Sleep(time.Until(deadline))
						return timeout
					}
					c := entrapg.NewConnector("host=db.example.com user=app", entrapg.WithCredential(&numbered{life: time.Hour}),
						entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
							config.LookupFunc = func(ctx context.Context, _ string) ([]string, error) {
								if name == "lookup" {
									return nil, expire(ctx)
								}
								return []string{"192.0.2.1"}, nil
							}
							config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, expire(ctx) }
						}))
					defer c.Close()
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					if _, err := c.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) || entrapg.Explain(err) == "" {
						t.Errorf("got %v, want the caller's deadline and an explanation", err)
					}
				})
			}
		})
	}
}

func TestLogin_TokenIsInNoRenderedValue(t *testing.T) {
	t.Parallel()
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
		entrapg.WithLogger(slog.New(slog.NewMultiHandler(slog.NewTextHandler(out, everything),
			slog.NewJSONHandler(out, everything)))),
		entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.Tracer = tracer{out.add} }),
	}
	c := entrapg.NewConnector(s.DSN(), opts...)
	defer c.Close()
	config := poolConfig(t, s.DSN(), opts...)
	pool := newPool(t, config)

	successes := 0
	try := func(faults entrapgtest.Faults) {
		s.SetFaults(faults)
		limit := time.Minute
		if faults.LoginDelay > 0 {
			limit = time.Second
		}
		limited := func(do func(context.Context)) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
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
			out.add(err) // without its configuration: see PoolConfig
		} else {
			out.addError(err)
		}
		// The structs themselves, as a debugger or a log call prints them.
		out.add(c, c.Stats(), config, *config, config.ConnConfig, *config.ConnConfig)
	}
	try(entrapgtest.Faults{})
	try(entrapgtest.Faults{LoginDelay: time.Minute})
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
	createRole(t, s, p.Name, wrong) // from now on the role belongs to another principal
	try(entrapgtest.Faults{})
	for _, login := range s.Logins() {
		out.add(login)
	}
	pool.Close()
	if err := s.Close(); err != nil { // values must not change while they are rendered
		t.Fatal(err)
	}
	out.add(s, p)

	if successes < 3 {
		t.Errorf("only %d logins succeeded, want at least 3", successes)
	}
	if len(tokens) < 4 {
		t.Fatalf("only %d tokens were requested, want at least 4", len(tokens))
	}
	out.hides(t, tokens...)
}

// TestLogin_CredentialFailureOmitsTokenAndSecret tests all failures of a credential, including a
// panic with the token.
func TestLogin_CredentialFailureOmitsTokenAndSecret(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	p := s.Tenant.NewServicePrincipal("secretive")
	nobody := s.Tenant.NewServicePrincipal("nobody")
	nobody.Claims = map[string]any{"appid": nil, "app_displayname": nil}
	withSecret := func(secret string) azcore.TokenCredential {
		options := &azidentity.ClientSecretCredentialOptions{
			ClientOptions:            s.Tenant.ClientOptions(),
			DisableInstanceDiscovery: true,
		}
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
	tooLong := strings.Repeat(token.Token, 100)
	does := func(answer azcore.AccessToken, err error) azcore.TokenCredential {
		return credentialFunc(func(context.Context, string) (azcore.AccessToken, error) { return answer, err })
	}

	out := &rendered{}
	for name, failure := range map[string]struct {
		credential azcore.TokenCredential
		faults     entrapgtest.Faults
	}{
		"wrong secret":   {credential: withSecret(wrong)},
		"throttled":      {withSecret(p.ClientSecret), entrapgtest.Faults{Entra: entrapgtest.EntraThrottled}},
		"failing":        {withSecret(p.ClientSecret), entrapgtest.Faults{Entra: entrapgtest.EntraServerError}},
		"truncated":      {withSecret(p.ClientSecret), entrapgtest.Faults{Entra: entrapgtest.EntraTruncated}},
		"reset":          {withSecret(p.ClientSecret), entrapgtest.Faults{Entra: entrapgtest.EntraReset}},
		"down":           {withSecret(p.ClientSecret), entrapgtest.Faults{EntraDown: true}},
		"expired":        {credential: does(azcore.AccessToken{Token: token.Token, ExpiresOn: time.Now().Add(-time.Hour)}, nil)},
		"no expiry":      {credential: does(azcore.AccessToken{Token: token.Token}, nil)},
		"quoted":         {credential: does(azcore.AccessToken{Token: `"` + token.Token + `"`, ExpiresOn: time.Now().Add(time.Hour)}, nil)},
		"too long":       {credential: does(azcore.AccessToken{Token: tooLong, ExpiresOn: time.Now().Add(time.Hour)}, nil)},
		"token in error": {credential: does(azcore.AccessToken{}, fmt.Errorf("cannot read {%q}", token.Token))},
		"nameless":       {credential: nobody},
		"panic": {credential: credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
			panic("no room for " + token.Token)
		})},
		"panic with the answer": {credential: credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
			panic(token)
		})},
	} {
		s.SetFaults(failure.faults)
		c := entrapg.NewConnector(
			s.DSN(),
			entrapg.WithCredential(failure.credential),
			entrapg.WithLogger(slog.New(slog.NewTextHandler(out, nil))),
		)
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

func TestLogin_TokenRepeatedByServerIsRedacted(t *testing.T) {
	value := strings.Repeat("0123456789abcdef", 300) // long enough to be repeated in part
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: value, ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	for name, repeated := range map[string]string{"whole": value, "cut off": value[:4095], "the end": value[100:]} {
		for _, severity := range []string{"FATAL", "ERROR"} {
			s := &pipeServer{reject: func(string) *pgproto3.ErrorResponse {
				return &pgproto3.ErrorResponse{
					Severity: severity,
					Code:     "28000",
					Message:  "cannot parse " + repeated,
					Detail:   repeated,
					Hint:     repeated,
					Where:    repeated,
				}
			}}
			out := &rendered{}
			err := connect(t, entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential)))
			out.addError(err)
			var login *entrapg.LoginError
			if !errors.As(err, &login) || !strings.Contains(err.Error(), "cannot parse [token]") {
				t.Errorf("%s: got %v, want a LoginError without the token", name, err)
			}
			out.addError(newPool(t, poolConfig(t, bubbleDSN, s.options(), entrapg.WithCredential(credential))).Ping(t.Context()))
			if strings.Contains(out.String(), value[:32]) {
				t.Errorf("%s, %s: the error contains the token", name, severity)
			}
		}
	}
}

func TestLogin_ConfigOfOpenConnectionHasNoToken(t *testing.T) {
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
	for range 4 { // concurrently, for -race
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
	if got := s.passwords(); len(got) != 5 || got[0] != "token-1" || got[1] != "of the caller" ||
		got[4] != "of the caller" {
		t.Errorf("passwords sent: %q", got)
	}
}

func TestLogin_TokenInCredentialErrorIsRedacted(t *testing.T) {
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: "canary"}, errors.New("cannot keep canary")
	})
	var token *entrapg.TokenError
	if err := connect(t, entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(credential))); !errors.As(err, &token) ||
		strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v", err)
	}
}

func TestLogin_TokenInUnreadableResponseIsRedacted(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	s.SetFaults(entrapgtest.Faults{Entra: entrapgtest.EntraTruncated})
	for name, credential := range map[string]azcore.TokenCredential{
		"managed identity": virtualMachine(t, s, s.Tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm-truncated")),
		"client assertion": assertion(t, s, s.Tenant.NewServicePrincipal("truncated")),
	} {
		c := entrapg.NewConnector(s.DSN(), entrapg.WithCredential(credential))
		defer c.Close()
		out := &rendered{}
		err := connect(t, c)
		out.addError(err)
		var token *entrapg.TokenError
		if !errors.As(err, &token) || strings.Contains(out.String(), "eyJ") {
			t.Errorf("%s: got %v, want a TokenError without any part of the token", name, err)
		}
	}
}

func TestLogin_OAUTHBEARERSendsSameToken(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{OAuth: true})
	p := app(t, s)
	if err := newPool(t, poolConfig(t, s.DSN(), entrapg.WithCredential(p))).Ping(t.Context()); err != nil {
		t.Errorf("pgxpool: %v", err)
	}
	db, c := open(t, s.DSN(), entrapg.WithCredential(p), entrapg.WithLogger(nil))
	db.SetMaxIdleConns(0)
	for range 2 {
		if user := sessionUser(t, db); user != p.Name {
			t.Errorf("logged in as %q, want %q", user, p.Name)
		}
		if err := s.RevokeTokens(); err != nil { // so that the second login replaces the token
			t.Fatal(err)
		}
	}
	if stats := c.Stats(); stats.LoginRetries != 1 || stats.LoginsRejected != 1 || stats.Logins != 2 {
		t.Errorf("Stats: %+v", stats)
	}
}

func TestLogin_OAUTHBEARERRejectionHasHint(t *testing.T) {
	s := start(t, entrapgtest.Config{OAuth: true})
	owner := app(t, s)
	db, _ := open(t, s.DSN()+"&user="+owner.Name, entrapg.WithCredential(s.Tenant.NewUserAssignedIdentity("mallory")))
	err := db.PingContext(t.Context())
	var login *entrapg.LoginError
	if !errors.As(err, &login) || login.Hint == "" || !strings.Contains(err.Error(), "invalid_token") {
		t.Errorf("got %v, want a LoginError with the server's status and a hint", err)
	}
}

func TestLogin_OpenConnectionProvidesNoOAUTHBEARERToken(t *testing.T) {
	s := start(t, entrapgtest.Config{OAuth: true})
	db, _ := open(t, s.DSN(), entrapg.WithCredential(app(t, s)))
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Raw(func(driverConn any) error {
		provide := driverConn.(*stdlib.Conn).Conn().Config().OAuthTokenProvider
		if token, err := provide(t.Context()); token != "" || err == nil {
			t.Errorf("got a token of %d bytes, error %v", len(token), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLogin_SilentServerTimesOutAfter30Seconds(t *testing.T) {
	const tokenWait = 20 * time.Second // does not count toward the timeout
	for _, test := range []struct {
		dsn  string
		want time.Duration
	}{
		{bubbleDSN, 30 * time.Second},
		{bubbleDSN + " connect_timeout=5", 5 * time.Second},
		{"postgres://app@127.0.0.1/?sslmode=disable&connect_timeout=70", 70 * time.Second},
		{"host=127.0.0.1,127.0.0.2 user=app sslmode=disable", 60 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := entrapg.NewConnector(test.dsn, silent(), entrapg.WithCredential(&numbered{life: time.Hour, delay: tokenWait}))
			start := time.Now()
			_, err := c.Connect(context.Background())
			var connect *pgconn.ConnectError
			if took := time.Since(start) - tokenWait; took != test.want || !errors.As(err, &connect) ||
				!errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v after %v, want pgx's timeout after %v", test.dsn, err, took, test.want)
			}
		})
	}
}
