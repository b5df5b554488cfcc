package entrapg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// claimsChallenge makes a credential return a newer token than the cached one.
const claimsChallenge = `{"access_token":{"nbf":{"essential":true,"value":"NOW"}}}`

var errEntraDown = errors.New("the authority is down")

// optionsFunc is a credential that calls a function with all options.
type optionsFunc func(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error)

func (f optionsFunc) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return f(ctx, options)
}

// A recorder is a credential that records its requests. Its tokens are token-1, token-2 and so on.
type recorder struct {
	noClaims bool // requests with claims fail, as those to the Azure CLI's credential do

	mu    sync.Mutex
	asked []policy.TokenRequestOptions
}

func (r *recorder) GetToken(_ context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, options)
	if r.noClaims && options.Claims != "" {
		return azcore.AccessToken{}, errors.New("this credential takes no claims")
	}
	return azcore.AccessToken{Token: fmt.Sprintf("token-%d", len(r.asked)), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// claims returns the claims of all requests so far.
func (r *recorder) claims() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, options := range r.asked {
		all = append(all, options.Claims)
	}
	return all
}

// sharing returns connectors to two servers that share a credential.
func sharing(credential azcore.TokenCredential, a, b entrapg.Option) (toA, toB *entrapg.Connector) {
	with, quiet := entrapg.WithCredential(credential), entrapg.WithLogger(nil)
	return entrapg.NewConnector("host=127.0.0.1 user=app sslmode=disable", a, with, quiet),
		entrapg.NewConnector("host=127.0.0.2 user=app sslmode=disable", b, with, quiet)
}

func TestToken_RejectionByOneServerWhileEntraIsDownDoesNotAffectOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		credential := &numbered{life: time.Hour}
		serverA, serverB := &pipeServer{}, &pipeServer{}
		a, b := sharing(credential, serverA.options(), serverB.options())
		defer a.Close()
		defer b.Close()
		mustConnect(t, a)
		credential.fail(errEntraDown)
		serverA.setReject(rejectTokens("token-1"))
		var login *entrapg.LoginError
		if err := connect(t, a); !errors.As(err, &login) || !errors.Is(err, errEntraDown) {
			t.Fatalf("got %v, want a LoginError and the credential's error", err)
		}
		failed := 0
		for range 1000 {
			if err := connect(t, b); err != nil {
				if failed++; failed == 1 {
					t.Errorf("another server: %v", err)
				}
			} else if s := serverB.last(); s != "token-1" {
				t.Fatalf("another server got %s, want token-1", s)
			}
		}
		if failed > 0 {
			t.Errorf("%d of 1000 connects to another server failed", failed)
		}
	})
}

func TestToken_EveryRejectionIsRetriedWhileOthersLogInWithOldToken(t *testing.T) {
	t.Parallel()
	const rounds = 100
	synctest.Test(t, func(t *testing.T) {
		credential := &numbered{life: 1000 * time.Hour}
		rejecting, slow, fast := &pipeServer{}, &pipeServer{}, &pipeServer{}
		var onReject func()
		rejected := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
			c.OnPgError = func(*pgconn.PgConn, *pgconn.PgError) bool { onReject(); return false }
		})
		with, quiet := entrapg.WithCredential(credential), entrapg.WithLogger(nil)
		a := entrapg.NewConnector("host=127.0.0.1 user=app sslmode=disable", rejecting.options(), rejected, with, quiet)
		b := entrapg.NewConnector("host=127.0.0.2 user=app sslmode=disable", slow.options(), with, quiet)
		c := entrapg.NewConnector("host=127.0.0.3 user=app sslmode=disable", fast.options(), with, quiet)
		defer a.Close()
		defer b.Close()
		defer c.Close()
		mustConnect(t, a)

		lost := 0
		for range rounds {
			rejecting.setReject(rejectTokens(fmt.Sprintf("token-%d", credential.count())))
			decide, decided := make(chan struct{}), make(chan struct{})
			slow.setReject(func(string) *pgproto3.ErrorResponse { <-decide; return nil })
			go func() {
				defer close(decided)
				if err := connect(t, b); err != nil {
					t.Errorf("the slow login: %v", err)
				}
			}()
			synctest.Wait() // until the slow login has sent the token that is about to be rejected
			onReject = sync.OnceFunc(func() { close(decide); <-decided })
			var others sync.WaitGroup
			for range 4 {
				others.Go(func() {
					for range 3 {
						if err := connect(t, c); err != nil {
							t.Errorf("another login: %v", err)
						}
					}
				})
			}
			if err := connect(t, a); err != nil {
				if lost++; lost == 1 {
					t.Errorf("the rejected login: %v", err)
				}
			}
			onReject()
			others.Wait()
			time.Sleep(time.Minute)
		}
		if retries := a.Stats().LoginRetries; lost > 0 || retries != rounds {
			t.Errorf("%d of %d rejected logins were lost, %d retried", lost, rounds, retries)
		}
	})
}

func TestToken_ManyRejectedUsersCauseFewRequests(t *testing.T) {
	t.Parallel()
	const users, limit = 1200, 10 // more users than a source remembers
	for _, kind := range []string{"Connector", "pgxpool"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				credential := &numbered{life: time.Hour}
				accepting, rejecting := &pipeServer{}, &pipeServer{reject: rejectEveryLogin}
				with, quiet := entrapg.WithCredential(credential), entrapg.WithLogger(nil)
				good := entrapg.NewConnector(bubbleDSN, accepting.options(), with, quiet)
				defer good.Close()
				config, err := entrapg.PoolConfig(bubbleDSN, rejecting.options(), with, quiet)
				if err != nil {
					t.Fatal(err)
				}
				logIn := func(user string) error {
					c := config.ConnConfig.Copy()
					c.User = user
					if err := config.BeforeConnect(t.Context(), c); err != nil {
						return err
					}
					conn, err := pgx.ConnectConfig(t.Context(), c)
					if err == nil {
						conn.Close(t.Context())
					}
					return err
				}
				if kind == "Connector" {
					logIn = func(user string) error {
						c := entrapg.NewConnector(strings.Replace(bubbleDSN, "app", user, 1), rejecting.options(), with, quiet)
						defer c.Close()
						return connect(t, c)
					}
				}
				for n := range users {
					mustConnect(t, good)
					if logIn(fmt.Sprintf("user%d", n)) == nil {
						t.Fatal("a rejected user's login succeeded")
					}
				}
				mustConnect(t, good)
				if n := credential.count(); n > limit {
					t.Errorf("%d token requests for %d rejected users, want at most %d", n, users, limit)
				}
			})
		})
	}
}

func TestToken_RequestAfterRejectionDoesNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		credential := &numbered{life: time.Hour}
		serverA, serverB := &pipeServer{}, &pipeServer{}
		a, b := sharing(credential, serverA.options(), serverB.options())
		defer a.Close()
		defer b.Close()
		mustConnect(t, b)
		credential.mu.Lock()
		credential.delay = 20 * time.Second
		credential.mu.Unlock()
		serverA.setReject(rejectTokens("token-1"))
		start := time.Now()
		var rejected sync.WaitGroup
		rejected.Go(func() {
			if err := connect(t, a); err != nil {
				t.Errorf("the rejected login: %v", err)
			}
			if waited := time.Since(start); waited != 20*time.Second {
				t.Errorf("the rejected login took %v, want 20s", waited)
			}
		})
		synctest.Wait()
		mustConnect(t, b)
		if waited := time.Since(start); waited != 0 || serverB.last() != "token-1" {
			t.Errorf("another server's login waited %v and used %s, want token-1 at once", waited, serverB.last())
		}
		rejected.Wait()
		mustConnect(t, b)
		if serverB.last() != "token-2" {
			t.Errorf("later, another server's login used %s, want token-2", serverB.last())
		}
	})
}

func TestToken_RequestAfterRejectionHasClaimsChallenge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		credential, s := &recorder{}, &pipeServer{}
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		defer c.Close()
		mustConnect(t, c)
		s.setReject(rejectTokens("token-1"))
		mustConnect(t, c)
		time.Sleep(56 * time.Minute)
		mustConnect(t, c) // refreshed ahead
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		mustConnect(t, c) // expired
		if got, want := credential.claims(), []string{"", claimsChallenge, "", ""}; !slices.Equal(got, want) {
			t.Errorf("claims of the requests: %q, want %q", got, want)
		}
		for n, options := range credential.asked {
			if options.EnableCAE || !slices.Equal(options.Scopes, []string{databaseScope}) || options.TenantID != "" {
				t.Errorf("request %d: %+v", n+1, options)
			}
		}
	})
}

func TestToken_CredentialThatRejectsClaimsIsCalledWithoutThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		credential, s := &recorder{noClaims: true}, &pipeServer{}
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		defer c.Close()
		mustConnect(t, c)
		s.setReject(rejectTokens("token-1"))
		mustConnect(t, c)
		if got, want := credential.claims(), []string{"", claimsChallenge, ""}; !slices.Equal(got, want) {
			t.Errorf("claims of the requests: %q, want %q", got, want)
		}
		if s.last() != "token-3" {
			t.Errorf("logged in with %s, want token-3, from the request without claims", s.last())
		}
	})
}

func TestToken_AzureCLIIsCalledAgainAfterRejection(t *testing.T) {
	cli, err := azidentity.NewAzureCLICredential(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		dsn  string
		opts []entrapg.Option
	}{
		"entra_credential": {" entra_credential=azurecli", nil},
		"WithCredential":   {"", []entrapg.Option{entrapg.WithCredential(cli)}},
	} {
		t.Run(name, func(t *testing.T) {
			s, dsn := tcpServer(t)
			calls := azureCLI(t, `n=$(grep -c called "${0%/*}/calls")`+"\n"+
				azAnswer(azcore.AccessToken{Token: `token-'"$n"'`, ExpiresOn: time.Now().Add(time.Hour)}))
			c := entrapg.NewConnector(dsn+test.dsn, append(test.opts, entrapg.WithLogger(nil))...)
			defer c.Close()
			mustConnect(t, c)
			s.setReject(rejectTokens("token-1"))
			mustConnect(t, c)
			if n := calls(); n != 2 || s.last() != "token-2" {
				t.Errorf("az was called %d times, and %s logged in, want 2 and token-2", n, s.last())
			}
		})
	}
}

func TestToken_AzidentityReturnsNewTokenAfterRevocation(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	service := s.Tenant.NewServicePrincipal("revoked-deployer")
	identity := s.Tenant.NewUserAssignedIdentity("id-revoked")
	createRole(t, s, "", service)
	createRole(t, s, "", identity)
	secret, err := azidentity.NewClientSecretCredential(s.Tenant.ID, service.ClientID, service.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: s.Tenant.ClientOptions(), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	managed, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: s.Tenant.NewHost(identity).Client()},
		ID:            azidentity.ClientID(identity.ClientID),
	})
	if err != nil {
		t.Fatal(err)
	}
	const resource = "https://ossrdbms-aad.database.windows.net"
	for _, test := range []struct {
		role       string
		credential azcore.TokenCredential
	}{{service.Name, secret}, {identity.Name, managed}} {
		t.Run(fmt.Sprintf("%T", test.credential), func(t *testing.T) {
			c := entrapg.NewConnector(s.DSN()+"&user="+test.role,
				entrapg.WithCredential(test.credential), entrapg.WithLogger(nil))
			defer c.Close()
			before := s.Tenant.RequestsFor(resource)
			mustConnect(t, c)
			for range 2 {
				if err := s.RevokeTokens(); err != nil {
					t.Fatal(err)
				}
				if err := connect(t, c); err != nil {
					t.Fatalf("after the tokens were revoked: %v", err)
				}
				mustConnect(t, c)
			}
			if n := s.Tenant.RequestsFor(resource) - before; n != 3 {
				t.Errorf("%d requests, want one at first and one after each revocation", n)
			}
			if retries := c.Stats().LoginRetries; retries != 2 {
				t.Errorf("%d retries, want 2", retries)
			}
		})
	}
}

func TestToken_CredentialThatFailsAtOnceIsNotCalledByEveryConnect(t *testing.T) {
	t.Parallel()
	credential := &numbered{life: time.Hour}
	credential.fail(errEntraDown)
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		for range 1000 {
			var token *entrapg.TokenError
			if err := connect(t, c); !errors.As(err, &token) || !errors.Is(err, errEntraDown) {
				t.Fatalf("got %v, want a TokenError with the credential's own", err)
			}
			time.Sleep(time.Millisecond)
		}
		if n := credential.count(); n > 3 {
			t.Errorf("1000 connects in a second called the credential %d times, want at most 3", n)
		}
		if n := len(s.passwords()); n > 0 {
			t.Errorf("%d passwords were sent", n)
		}
	})
}

func TestToken_FirstFailureCausesNoDelay(t *testing.T) {
	t.Parallel()
	credential := &numbered{life: time.Minute}
	credential.fail(errEntraDown)
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		for outage := range 3 {
			calls := credential.count()
			for n, want := range []int{1, 2, 2, 2} {
				err := connect(t, c)
				if got := credential.count() - calls; got != want {
					t.Errorf("outage %d, connect %d: %d calls, want %d", outage, n+1, got, want)
				}
				if paused := n >= 2; paused && (err == nil || !strings.Contains(err.Error(), "next attempt in ")) {
					t.Errorf("outage %d, connect %d: got %v, want the time of the next attempt", outage, n+1, err)
				}
				if !errors.Is(err, errEntraDown) {
					t.Errorf("outage %d, connect %d: got %v, want the last error", outage, n+1, err)
				}
			}
			for range 600 { // the pause grows
				if err := connect(t, c); err == nil {
					t.Fatal("no error")
				}
				time.Sleep(100 * time.Millisecond)
			}
			credential.fail(nil)
			time.Sleep(15 * time.Second)
			mustConnect(t, c) // a success ends the pause
			time.Sleep(time.Hour)
			credential.fail(errEntraDown)
		}
	})
}

func TestToken_LoginsSucceedWithin15SecondsAfterOutage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		outage, every time.Duration
		calls         int // at most; the minimum is the number of pauses of 15 s that fit
	}{
		{100 * time.Millisecond, time.Millisecond, 3},
		{time.Second, time.Millisecond, 4},
		{10 * time.Second, 10 * time.Millisecond, 10},
		{time.Minute, 50 * time.Millisecond, 20},
		{10 * time.Minute, 500 * time.Millisecond, 100},
		{2 * time.Hour, 2 * time.Second, 1000},
	} {
		t.Run(test.outage.String(), func(t *testing.T) {
			credential := &numbered{life: time.Hour}
			credential.fail(errEntraDown)
			inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
				for end := time.Now().Add(test.outage); time.Now().Before(end); time.Sleep(test.every) {
					start := time.Now()
					if err := connect(t, c); err == nil || time.Since(start) != 0 {
						t.Fatalf("after %v: %v, want the last error at once", time.Since(start), err)
					}
				}
				if n, least := credential.count(), int(test.outage/(17*time.Second)); n > test.calls || n < least {
					t.Errorf("%d calls, want %d to %d", n, least, test.calls)
				}
				credential.fail(nil)
				time.Sleep(15 * time.Second)
				mustConnect(t, c)
			})
		})
	}
}

func TestToken_RetryAfterIsHonored(t *testing.T) {
	failed := func(status int, after string) *azcore.ResponseError {
		return &azcore.ResponseError{StatusCode: status, RawResponse: &http.Response{
			StatusCode: status, Status: http.StatusText(status),
			Header: http.Header{"Retry-After": {after}}, Body: io.NopCloser(strings.NewReader("{}")),
		}}
	}
	inAMinute := func() string { return time.Now().Add(time.Minute).UTC().Format(http.TimeFormat) }
	for name, fail := range map[string]func() error{
		"seconds": func() error { return failed(429, "60") },
		"wrapped": func() error { return fmt.Errorf("no token: %w", failed(429, "60")) },
		"a date":  func() error { return failed(429, inAMinute()) },
		"of azidentity": func() error {
			return &azidentity.AuthenticationFailedError{RawResponse: failed(429, "60").RawResponse}
		},
		"503 as well":    func() error { return failed(503, "60") },
		"under a minute": func() error { return failed(429, "59") },
	} {
		t.Run(name, func(t *testing.T) {
			var down atomic.Bool
			var calls atomic.Int64
			var last time.Time
			credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
				calls.Add(1)
				last = time.Now()
				if down.Load() {
					return azcore.AccessToken{}, fail()
				}
				return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
			})
			inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
				down.Store(true)
				for range 3 {
					if err := connect(t, c); err == nil {
						t.Fatal("no error")
					}
				}
				n := calls.Load()
				if n > 2 { // the first failure may be free
					t.Errorf("%d calls by three connects, want at most 2", n)
				}
				down.Store(false)
				for time.Since(last) < 58*time.Second {
					if err := connect(t, c); err == nil || !strings.Contains(err.Error(), "next attempt in ") {
						t.Fatalf("%v after the last call: got %v, want the time of the next attempt", time.Since(last), err)
					}
					time.Sleep(time.Second)
				}
				if calls.Load() != n {
					t.Errorf("%d calls within the minute", calls.Load()-n)
				}
				time.Sleep(3 * time.Second)
				mustConnect(t, c)
			})
		})
	}
}

// A connectingHandler is a slog.Handler that opens a connection for each record, as one
// that writes to the database does.
type connectingHandler struct {
	level slog.Level
	to    *entrapg.Connector

	inside atomic.Bool // drops the records of its own connection
	mu     sync.Mutex
	got    []string // how the connections ended, by record
}

func (h *connectingHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level
}
func (h *connectingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *connectingHandler) WithGroup(string) slog.Handler      { return h }

func (h *connectingHandler) Handle(_ context.Context, r slog.Record) error {
	if !h.inside.CompareAndSwap(false, true) {
		return nil
	}
	defer h.inside.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	start := time.Now()
	conn, err := h.to.Connect(ctx)
	if err == nil {
		conn.Close()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, fmt.Sprintf("%q: %v after %v", r.Message, err, time.Since(start)))
	return nil
}

// check fails the test unless there were records, and a connection was opened at once for each.
func (h *connectingHandler) check(t *testing.T) {
	t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.got) == 0 {
		t.Error("nothing was logged")
	}
	for _, got := range h.got {
		if !strings.HasSuffix(got, ": <nil> after 0s") {
			t.Errorf("the handler's connection on %s, want it at once", got)
		}
	}
}

func TestToken_LogHandlerMayConnectThroughTheSameConnector(t *testing.T) {
	type run func(t *testing.T, c *entrapg.Connector, s *pipeServer, credential *numbered)
	for name, test := range map[string]struct {
		level slog.Level
		run   run
	}{
		"new token": {slog.LevelDebug, func(t *testing.T, c *entrapg.Connector, _ *pipeServer, _ *numbered) {
			start := time.Now()
			mustConnect(t, c)
			if waited := time.Since(start); waited != 0 {
				t.Errorf("the connection took %v", waited)
			}
		}},
		"failed refresh in the background": {
			slog.LevelWarn,
			func(t *testing.T, c *entrapg.Connector, _ *pipeServer, credential *numbered) {
				mustConnect(t, c)
				credential.fail(errEntraDown)
				time.Sleep(56 * time.Minute)
				mustConnect(t, c)
			},
		},
		"refresh in the background": {slog.LevelDebug, func(t *testing.T, c *entrapg.Connector, _ *pipeServer, _ *numbered) {
			mustConnect(t, c)
			time.Sleep(56 * time.Minute)
			mustConnect(t, c)
		}},
		"retry after a rejection": {slog.LevelWarn, func(t *testing.T, c *entrapg.Connector, s *pipeServer, _ *numbered) {
			mustConnect(t, c)
			s.setReject(rejectTokens("token-1"))
			mustConnect(t, c)
		}},
		"retry after a rejection, with the new token": {
			slog.LevelDebug,
			func(t *testing.T, c *entrapg.Connector, s *pipeServer, _ *numbered) {
				mustConnect(t, c)
				s.setReject(rejectTokens("token-1"))
				mustConnect(t, c)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				credential, s, handler := &numbered{life: time.Hour}, &pipeServer{}, &connectingHandler{level: test.level}
				c := entrapg.NewConnector(bubbleDSN, s.options(),
					entrapg.WithCredential(credential), entrapg.WithLogger(slog.New(handler)))
				defer c.Close()
				handler.to = c
				test.run(t, c, s, credential)
				handler.check(t)
			})
		})
	}
}

func TestToken_ConnectWaitsAtMost30SecondsForTokens(t *testing.T) {
	const limit = 30 * time.Second
	const withoutUser = "host=127.0.0.1 sslmode=disable"
	nameless := jwt(c{"oid": "0a", "tid": "7e", "appid": "y"})
	named := jwt(c{"oid": "0a", "tid": "7e", "xms_mirid": identities + "shop-api"})
	isManagement := func(o policy.TokenRequestOptions) bool { return strings.Contains(o.Scopes[0], "management") }
	hang := func(ctx context.Context) (azcore.AccessToken, error) {
		<-ctx.Done()
		return azcore.AccessToken{}, ctx.Err()
	}
	answer := func(token string, delay time.Duration) (azcore.AccessToken, error) {
		time.Sleep(delay)
		return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
	}
	// measure calls Connect of c and checks that it returns in time.
	measure := func(t *testing.T, c *entrapg.Connector) {
		t.Helper()
		start := time.Now()
		err := connect(t, c)
		if took := time.Since(start); took > limit {
			t.Errorf("Connect took %v, want at most %v: %v", took, limit, err)
		}
	}

	t.Run("the token takes its time, and its replacement hangs", func(t *testing.T) {
		calls := 0
		credential := optionsFunc(func(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
			if calls++; calls == 1 {
				return answer("token-1", 20*time.Second)
			}
			return hang(ctx)
		})
		inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
			s.setReject(rejectTokens("token-1"))
			measure(t, c)
		})
	})

	t.Run("the user's name takes its time, and the token's replacement hangs", func(t *testing.T) {
		calls := 0
		credential := new(optionsFunc(func(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
			if isManagement(o) {
				return answer(named, 9*time.Second)
			}
			if calls++; calls == 1 {
				return answer(nameless, 0)
			}
			return hang(ctx)
		}))
		synctest.Test(t, func(t *testing.T) {
			s := &pipeServer{}
			with, quiet := entrapg.WithCredential(credential), entrapg.WithLogger(nil)
			first := entrapg.NewConnector(bubbleDSN, s.options(), with, quiet)
			second := entrapg.NewConnector(withoutUser, s.options(), with, quiet)
			defer first.Close()
			defer second.Close()
			mustConnect(t, first)
			s.setReject(rejectTokens(nameless))
			measure(t, second)
			if n := len(s.passwords()); n != 2 {
				t.Errorf("%d logins, want 2: the name was found, and the token rejected", n)
			}
		})
	})

	t.Run("another's request takes its time, and the user's name hangs", func(t *testing.T) {
		release := make(chan struct{})
		credential := new(optionsFunc(func(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
			if isManagement(o) {
				<-release // ignores its context
				return azcore.AccessToken{}, errEntraDown
			}
			return answer(nameless, 20*time.Second)
		}))
		synctest.Test(t, func(t *testing.T) {
			release = make(chan struct{})
			s := &pipeServer{}
			with, quiet := entrapg.WithCredential(credential), entrapg.WithLogger(nil)
			first := entrapg.NewConnector(bubbleDSN, s.options(), with, quiet)
			second := entrapg.NewConnector(withoutUser, s.options(), with, quiet)
			defer first.Close()
			defer second.Close()
			var other sync.WaitGroup
			other.Go(func() {
				if err := connect(t, first); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait() // until the first one's request is in flight
			measure(t, second)
			close(release)
			other.Wait()
			synctest.Wait()
		})
	})
}

func TestToken_ManagementTokenNamesTheSameIdentityOnly(t *testing.T) {
	database := c{"oid": "0a", "tid": "7e", "idtyp": "app", "appid": "client-id"}
	for name, test := range map[string]struct {
		management map[string]any
		want       string
	}{
		"the same identity": {c{"oid": "0a", "tid": "7e", "xms_mirid": identities + "shop-api"}, "shop-api"},
		"another object":    {c{"oid": "0b", "tid": "7e", "xms_mirid": identities + "admin"}, "client-id"},
		"another tenant":    {c{"oid": "0a", "tid": "7f", "xms_mirid": identities + "admin"}, "client-id"},
		"another person":    {c{"oid": "0b", "tid": "7e", "upn": "admin@contoso.example"}, "client-id"},
		"another machine":   {c{"oid": "0b", "tid": "7f", "xms_mirid": machines + "admin"}, "client-id"},
	} {
		t.Run(name, func(t *testing.T) {
			credential := credentialFunc(func(_ context.Context, scope string) (azcore.AccessToken, error) {
				claims := database
				if scope == "https://management.azure.com/.default" {
					claims = test.management
				}
				return azcore.AccessToken{Token: jwt(claims), ExpiresOn: time.Now().Add(time.Hour)}, nil
			})
			s := &pipeServer{}
			c := entrapg.NewConnector("host=127.0.0.1 sslmode=disable", s.options(),
				entrapg.WithCredential(credential), entrapg.WithLogger(nil))
			defer c.Close()
			mustConnect(t, c)
			if user := c.Stats().User; user != test.want {
				t.Errorf("logged in as %q, want %q", user, test.want)
			}
		})
	}
}
