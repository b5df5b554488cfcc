package entrapg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestToken_IsRefreshedInBackgroundFiveMinutesBeforeExpiry(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		time.Sleep(55*time.Minute - time.Nanosecond)
		mustConnect(t, c)
		synctest.Wait()
		if n := credential.count(); n != 1 {
			t.Fatalf("%d token requests before the last five minutes, want 1", n)
		}
		time.Sleep(time.Nanosecond)
		mustConnect(t, c)
		if s.last() != "token-1" {
			t.Errorf("the login that started the refresh used %s, want token-1", s.last())
		}
		synctest.Wait()
		mustConnect(t, c)
		if s.last() != "token-2" || credential.count() != 2 {
			t.Errorf("after the refresh: %s after %d requests, want token-2 after 2", s.last(), credential.count())
		}
	})
}

func TestToken_ShortLivedTokenIsRefreshedInLastQuarter(t *testing.T) {
	credential := &numbered{life: 8 * time.Second}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		mustConnect(t, c)
		time.Sleep(6*time.Second - time.Nanosecond)
		mustConnect(t, c)
		synctest.Wait()
		if n := credential.count(); n != 1 {
			t.Fatalf("%d requests in the first three quarters, want 1", n)
		}
		time.Sleep(time.Nanosecond)
		mustConnect(t, c)
		synctest.Wait()
		if n := credential.count(); n != 2 {
			t.Errorf("%d requests in the last quarter, want 2", n)
		}
	})
}

func TestToken_IsRefreshedAtRefreshOnIfSet(t *testing.T) {
	calls := 0
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		calls++
		now := time.Now()
		return azcore.AccessToken{
			Token:     strings.Repeat("x", calls),
			ExpiresOn: now.Add(24 * time.Hour),
			RefreshOn: now.Add(12 * time.Hour),
		}, nil
	})
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		mustConnect(t, c)
		time.Sleep(12*time.Hour - time.Nanosecond)
		mustConnect(t, c)
		synctest.Wait()
		if calls != 1 {
			t.Fatalf("%d requests before RefreshOn, want 1", calls)
		}
		time.Sleep(time.Nanosecond)
		mustConnect(t, c)
		synctest.Wait()
		if calls != 2 {
			t.Errorf("%d requests at RefreshOn, want 2", calls)
		}
	})
}

func TestToken_CallersDoNotWaitWhileTokenIsUsable(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		credential.delay = 20 * time.Second
		time.Sleep(time.Hour - time.Nanosecond - 10*time.Second)
		for range 10 { // the request is in flight the whole time
			start := time.Now()
			mustConnect(t, c)
			if waited := time.Since(start); waited != 0 {
				t.Fatalf("a connection waited %v although the token was usable", waited)
			}
			time.Sleep(time.Second)
		}
		if s.last() != "token-1" {
			t.Errorf("%s was used before token-1 expired", s.last())
		}
		time.Sleep(time.Nanosecond) // token-1 expires
		start := time.Now()
		mustConnect(t, c)
		if waited := time.Since(start); s.last() != "token-2" || waited != 10*time.Second-time.Nanosecond {
			t.Errorf("after expiry: %s after waiting %v, want token-2 from the request in flight", s.last(), waited)
		}
		if n := credential.count(); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

func TestToken_1000ColdConnectionsShareOneRequest(t *testing.T) {
	t.Parallel()
	credential := &numbered{life: time.Hour, delay: time.Second}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				if err := connect(t, c); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		all.Wait()
		if n := credential.count(); n != 1 {
			t.Errorf("%d requests for 1000 cold connections, want 1", n)
		}
	})
}

func TestToken_WaiterLeavesAtItsDeadlineAndRequestContinues(t *testing.T) {
	credential := &numbered{life: time.Hour, delay: 10 * time.Second}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		start := time.Now()
		var all sync.WaitGroup
		all.Go(func() { // starts the request
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Connect(ctx)
			var tokenErr *entrapg.TokenError
			if !errors.As(err, &tokenErr) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("first caller: got %v, want a TokenError that wraps its deadline", err)
			}
			if waited := time.Since(start); waited != time.Second {
				t.Errorf("first caller waited %v, want its deadline of 1s", waited)
			}
		})
		synctest.Wait()
		all.Go(func() {
			mustConnect(t, c)
			if waited := time.Since(start); waited != 10*time.Second {
				t.Errorf("second caller waited %v, want 10s", waited)
			}
		})
		all.Wait()
		if n := credential.count(); n != 1 {
			t.Errorf("%d requests, want 1: a caller that leaves must not cancel the request", n)
		}
	})
}

func TestToken_RequestKeepsValuesOfCallerContext(t *testing.T) {
	type key struct{}
	var got any
	credential := credentialFunc(func(ctx context.Context, _ string) (azcore.AccessToken, error) {
		got = ctx.Value(key{})
		return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		conn, err := c.Connect(context.WithValue(t.Context(), key{}, "trace"))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if got != "trace" {
			t.Errorf("the credential got the value %v, want the caller's", got)
		}
	})
}

func TestToken_HungRequestTimesOutAndLateTokenIsCached(t *testing.T) {
	var release chan struct{}
	calls := 0
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		calls++
		if calls == 1 {
			<-release // ignores its context
		}
		return azcore.AccessToken{Token: strings.Repeat("x", calls), ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{})
		s := &pipeServer{}
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		start := time.Now()
		err := connect(t, c)
		var tokenErr *entrapg.TokenError
		if !errors.As(err, &tokenErr) || !strings.Contains(err.Error(), "no answer within 30s") {
			t.Fatalf("got %v, want a TokenError for the timeout", err)
		}
		if waited := time.Since(start); waited != 30*time.Second {
			t.Errorf("waited %v, want 30s", waited)
		}
		close(release)
		synctest.Wait()
		mustConnect(t, c)
		if calls != 1 || s.last() != "x" {
			t.Errorf("the late token was not cached: %d calls, token %s", calls, s.last())
		}
	})
}

func TestToken_OutageFailsNoLoginAndIsRetriedWithBackoff(t *testing.T) {
	t.Parallel()
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		time.Sleep(55 * time.Minute)
		down := errors.New("Entra is down")
		credential.fail(down)
		for range 300 * 5 { // five connections a second until the token expires
			mustConnect(t, c)
			time.Sleep(200 * time.Millisecond)
		}
		if n := credential.count() - 1; n < 5 || n > 15 {
			t.Errorf("%d requests in five minutes of outage, want 5 to 15", n)
		}
		if stats := c.Stats(); stats.TokenFailures != int64(credential.count()-1) {
			t.Errorf("Stats: %d failures, want %d", stats.TokenFailures, credential.count()-1)
		}

		err := connect(t, c) // the token has expired
		var tokenErr *entrapg.TokenError
		if !errors.As(err, &tokenErr) || !errors.Is(err, down) {
			t.Errorf("after expiry: %v, want a TokenError that wraps the credential's error", err)
		}
		credential.fail(nil)
		mustConnect(t, c)
		if s.last() == "token-1" {
			t.Error("the expired token was used")
		}
	})
}

func TestToken_FailedRefreshIsLoggedOnceWithoutToken(t *testing.T) {
	credential := &numbered{life: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := &pipeServer{}
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential),
			entrapg.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))))
		mustConnect(t, c)
		credential.fail(errors.New("Entra is down"))
		time.Sleep(55 * time.Minute)
		mustConnect(t, c)
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "Entra is down") ||
			strings.Contains(log.String(), "token-1") {
			t.Errorf("want one record with the cause, got:\n%s", log.String())
		}
	})
}

func TestToken_RefreshThatReturnsSameTokenIsRetriedWithBackoff(t *testing.T) {
	t.Parallel()
	credential := &numbered{life: time.Hour, frozen: true}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		mustConnect(t, c)
		time.Sleep(55 * time.Minute)
		for range 290 * 5 {
			mustConnect(t, c)
			time.Sleep(200 * time.Millisecond)
		}
		if n := credential.count() - 1; n < 5 || n > 15 {
			t.Errorf("%d requests in five minutes, want 5 to 15", n)
		}
	})
}

func TestToken_IdleConnectorMakesNoRequests(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		mustConnect(t, c)
		time.Sleep(100 * time.Hour)
		synctest.Wait()
		if n := credential.count(); n != 1 {
			t.Errorf("%d requests by an idle connector, want none after the first", n)
		}
	})
}

func TestToken_RejectedTokenIsReplacedAndLoginRetriedOnce(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		s.setReject(rejectTokens("token-1"))
		mustConnect(t, c)
		if got := strings.Join(s.passwords(), " "); got != "token-1 token-1 token-2" {
			t.Errorf("tokens used: %s", got)
		}
		if stats := c.Stats(); stats.LoginsRejected != 1 || stats.LoginRetries != 1 || stats.Logins != 2 ||
			stats.TokenRequests != 2 {
			t.Errorf("Stats: %+v", stats)
		}
	})
}

func TestToken_LoginIsNeverRetriedTwice(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		s.setReject(rejectTokens("token-1", "token-2"))
		err := connect(t, c)
		var loginErr *entrapg.LoginError
		if !errors.As(err, &loginErr) {
			t.Fatalf("got %v, want a LoginError", err)
		}
		if got := strings.Join(s.passwords(), " "); got != "token-1 token-1 token-2" {
			t.Errorf("tokens used: %s", got)
		}
	})
}

func TestToken_LoginIsNotRetriedWithSameToken(t *testing.T) {
	credential := &numbered{life: time.Hour, frozen: true}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		s.setReject(rejectTokens("token-1"))
		if err := connect(t, c); err == nil || !strings.Contains(err.Error(), "no other token") {
			t.Fatalf("got %v, want the rejection and that there is no other token", err)
		}
		if n := len(s.passwords()); n != 2 {
			t.Errorf("%d logins, want 2", n)
		}
	})
}

func TestToken_RejectedNewTokenIsReplacedAtNextConnect(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		s.setReject(rejectTokens("token-1"))
		var loginErr *entrapg.LoginError
		if err := connect(t, c); !errors.As(err, &loginErr) {
			t.Fatalf("got %v, want a LoginError", err)
		}
		if n := len(s.passwords()); n != 1 {
			t.Errorf("%d logins, want 1", n)
		}
		mustConnect(t, c) // with a new token
	})
}

func TestToken_LoginIsRetriedOnlyAfterRejection(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		s.reject = func(string) *pgproto3.ErrorResponse {
			return &pgproto3.ErrorResponse{Severity: "FATAL", Code: "53300", Message: "sorry, too many clients already"}
		}
		if err := connect(t, c); err == nil {
			t.Fatal("the login succeeded")
		}
		if n := len(s.passwords()); n != 2 || credential.count() != 1 {
			t.Errorf("%d logins and %d token requests, want 2 and 1", n, credential.count())
		}
	})
}

func TestToken_RejectedIdentityCausesFewRequests(t *testing.T) {
	t.Parallel()
	for name, frozen := range map[string]bool{"new tokens": false, "the same token": true} {
		t.Run(name, func(t *testing.T) { testRejectedIdentity(t, &numbered{life: time.Hour, frozen: frozen}) })
	}
}

func testRejectedIdentity(t *testing.T, credential *numbered) {
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		s.setReject(rejectEveryLogin)
		for range 600 * 2 { // ten minutes, two connections a second
			if err := connect(t, c); err == nil {
				t.Fatal("the login succeeded")
			}
			time.Sleep(500 * time.Millisecond)
		}
		if n := credential.count(); n < 5 || n > 40 {
			t.Errorf("%d token requests in ten minutes, want 5 to 40", n)
		}
		s.setReject(nil)
		mustConnect(t, c) // with the current token
		if stats := c.Stats(); stats.Logins != 1 {
			t.Errorf("Stats: %+v", stats)
		}
	})
}

func TestToken_ConnectionsWithRevokedTokenShareOneRequest(t *testing.T) {
	credential := &numbered{life: time.Hour, delay: time.Second}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		s.setReject(rejectTokens("token-1"))
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := connect(t, c); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := credential.count(); n != 2 {
			t.Errorf("%d token requests, want 2", n)
		}
	})
}

func TestToken_FailedReplacementReportsBothErrors(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, s *pipeServer) {
		mustConnect(t, c)
		s.setReject(rejectTokens("token-1"))
		down := errors.New("Entra is down")
		credential.fail(down)
		err := connect(t, c)
		var loginErr *entrapg.LoginError
		var tokenErr *entrapg.TokenError
		if !errors.As(err, &loginErr) || !errors.As(err, &tokenErr) || !errors.Is(err, down) {
			t.Errorf("got %v, want a LoginError and a TokenError", err)
		}
	})
}

func TestToken_CloseEndsRequestInFlight(t *testing.T) {
	credential := &numbered{life: time.Hour, delay: 20 * time.Second}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		start := time.Now()
		time.AfterFunc(time.Second, func() { c.Close() })
		err := connect(t, c)
		if err == nil || !strings.Contains(err.Error(), "closed") || time.Since(start) != time.Second {
			t.Errorf("after %v: %v, want Close to end the wait after 1s", time.Since(start), err)
		}
		synctest.Wait() // the bubble fails the test if a goroutine leaks
		if err := connect(t, c); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("Connect after Close: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if !c.Stats().TokenExpiry.IsZero() {
			t.Error("the token is still cached after Close")
		}
	})
}

func TestToken_PanicInCredentialIsTokenError(t *testing.T) {
	for name, exit := range map[string]func(){
		"panic":  func() { panic("boom") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
				if calls++; calls == 1 {
					exit()
				}
				return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
			})
			inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
				var tokenErr *entrapg.TokenError
				if err := connect(t, c); !errors.As(err, &tokenErr) {
					t.Errorf("got %v, want a TokenError", err)
				}
				mustConnect(t, c)
			})
		})
	}
}

func TestToken_InvalidTokenIsTokenErrorBeforeDialing(t *testing.T) {
	hour := func() time.Time { return time.Now().Add(time.Hour) }
	for name, test := range map[string]struct {
		token azcore.AccessToken
		want  string
	}{
		"empty":             {azcore.AccessToken{ExpiresOn: hour()}, "empty"},
		"expired":           {azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(-time.Minute)}, "expired at"},
		"without ExpiresOn": {azcore.AccessToken{Token: "t"}, "ExpiresOn"},
		"quoted":            {azcore.AccessToken{Token: `"eyJ.a.b"`, ExpiresOn: hour()}, "malformed"},
		"with a newline":    {azcore.AccessToken{Token: "eyJ.a.b\n", ExpiresOn: hour()}, "malformed"},
		"with a NUL":        {azcore.AccessToken{Token: "eyJ\x00.a.b", ExpiresOn: hour()}, "malformed"},
		"a header":          {azcore.AccessToken{Token: "Bearer eyJ.a.b", ExpiresOn: hour()}, "malformed"},
		"too long":          {azcore.AccessToken{Token: strings.Repeat("x", 65531), ExpiresOn: hour()}, "65530"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &pipeServer{}
			c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credentialFunc(
				func(context.Context, string) (azcore.AccessToken, error) { return test.token, nil })))
			err := connect(t, c)
			var tokenErr *entrapg.TokenError
			if !errors.As(err, &tokenErr) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want a TokenError with %q", err, test.want)
			}
			if test.token.Token != "" && len(test.token.Token) > 1 && strings.Contains(err.Error(), test.token.Token) {
				t.Error("the error contains the token")
			}
			if len(s.passwords()) > 0 {
				t.Error("a password was sent")
			}
			if n := c.Stats().TokenFailures; n != 1 {
				t.Errorf("Stats: %d failures, want 1", n)
			}
		})
	}
}

func TestToken_RejectionByOneHostIsIgnoredIfAnotherAccepts(t *testing.T) {
	credential := &numbered{life: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		turn := 0
		s.reject = func(string) *pgproto3.ErrorResponse {
			if turn++; turn%2 == 1 {
				return &pgproto3.ErrorResponse{Severity: "FATAL", Code: "28000", Message: "no pg_hba.conf entry"}
			}
			return nil
		}
		c := entrapg.NewConnector("host=127.0.0.1,localhost user=app sslmode=disable", s.options(),
			entrapg.WithCredential(credential))
		for range 10 {
			mustConnect(t, c)
		}
		if n := credential.count(); n != 1 {
			t.Errorf("%d token requests, want 1", n)
		}
	})
}

func TestToken_HungCredentialIsNotCalledRepeatedly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
			<-release
			return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
		})
		s := &pipeServer{}
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		for range 100 {
			var token *entrapg.TokenError
			if err := connect(t, c); !errors.As(err, &token) {
				t.Fatalf("got %v, want a TokenError", err)
			}
		}
		if n := c.Stats().TokenRequests; n > 2 {
			t.Errorf("%d hung calls, want at most 2", n)
		}
		time.Sleep(11 * time.Minute)
		if err := connect(t, c); err == nil || c.Stats().TokenRequests != 3 {
			t.Errorf("after 11 minutes: %v, %d calls, want an error and 3 calls", err, c.Stats().TokenRequests)
		}
		close(release)
		synctest.Wait()
		mustConnect(t, c)
	})
}

func TestToken_CanceledCallerStartsNoRequest(t *testing.T) {
	credential := &numbered{life: time.Hour}
	inBubble(t, credential, func(t *testing.T, c *entrapg.Connector, _ *pipeServer) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Connect(ctx); !errors.Is(err, context.Canceled) || credential.count() != 0 {
			t.Errorf("%d requests, error %v", credential.count(), err)
		}
	})
}

func TestToken_200ColdConnectionsShareOneRequest(t *testing.T) {
	t.Parallel()
	p := server().Tenant.NewUser("cold@contoso.example")
	createRole(t, server(), "", p)
	requests := 0
	slow := credentialFunc(func(ctx context.Context, scope string) (azcore.AccessToken, error) {
		requests++ // -race detects overlapping requests
		time.Sleep(50 * time.Millisecond)
		return p.GetToken(ctx, tokenOptions(scope))
	})
	db, c := open(t, server().DSN("connect_timeout=300"), entrapg.WithCredential(slow)) // for slow machines
	db.SetMaxIdleConns(200)
	var all, ready sync.WaitGroup
	ready.Add(200)
	for range 200 {
		all.Go(func() {
			conn, err := db.Conn(t.Context())
			ready.Done()
			if err != nil {
				t.Error(err)
				return
			}
			ready.Wait() // keep all open at once
			conn.Close()
		})
	}
	all.Wait()
	if stats := c.Stats(); requests != 1 || stats.TokenRequests != 1 || stats.Logins != 200 {
		t.Errorf("%d requests; Stats: %+v", requests, stats)
	}
}

func TestToken_RevokedTokenIsReplacedWithoutFailedQuery(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	db, c := open(t, s.DSN(), entrapg.WithCredential(app(t, s)))
	db.SetMaxIdleConns(0)
	for range 3 {
		if err := db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.RevokeTokens(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stats := c.Stats(); stats.LoginRetries != 3 || stats.LoginsRejected != 3 {
		t.Errorf("Stats: %+v", stats)
	}
	attempts := s.Logins()
	if n := len(attempts); n != 7 {
		t.Errorf("the server received %d logins, want 7", n)
	}
}

func TestToken_RejectionBySecondHostIsRetried(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	dsn := strings.Replace(s.DSN(), "postgres://", "postgres://"+closedPort+",", 1)
	db, c := open(t, dsn, entrapg.WithCredential(app(t, s)))
	db.SetMaxIdleConns(0)
	sessionUser(t, db)
	if err := s.RevokeTokens(); err != nil {
		t.Fatal(err)
	}
	sessionUser(t, db)
	if n := c.Stats().LoginRetries; n != 1 {
		t.Errorf("%d retries, want 1", n)
	}
}

func TestToken_1000DSNsShareOneRequest(t *testing.T) {
	s, dsn := tcpServer(t)
	calls := azureCLI(t, azAnswer(forever))
	var all sync.WaitGroup
	limit := make(chan struct{}, 50)
	for i := range 1000 {
		db := openByName(t, fmt.Sprintf("%s dbname=tenant%d application_name=a%d entra_credential=azurecli", dsn, i, i))
		all.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			logIn(t, db)
		})
	}
	all.Wait()
	if n := calls(); n != 1 {
		t.Errorf("az was called %d times, want 1", n)
	}
	if n := len(s.passwords()); n != 1000 {
		t.Errorf("%d logins, want 1000", n)
	}
}

func TestToken_DSNsWithDifferentCredentialsShareNothing(t *testing.T) {
	_, dsn := tcpServer(t)
	calls := azureCLI(t, azAnswer(forever))
	for _, more := range []string{"", " entra_tenant_id=contoso.example", " entra_scope=api://other/.default"} {
		for range 2 {
			logIn(t, openByName(t, dsn+" entra_credential=AzureCLICredential"+more))
		}
	}
	if n := calls(); n != 3 {
		t.Errorf("az was called %d times, want 3", n)
	}
}

func TestToken_IsEvictedWhenLastPoolThatSharesItCloses(t *testing.T) {
	_, dsn := tcpServer(t)
	calls := azureCLI(t, azAnswer(forever))
	dsn += " entra_credential=azurecli"
	first, second := openByName(t, dsn), openByName(t, dsn)
	for _, step := range []struct {
		db    *sql.DB
		calls int
	}{{first, 1}, {second, 1}, {openByName(t, dsn), 1}} {
		logIn(t, step.db)
		step.db.Close()
		if n := calls(); n != step.calls {
			t.Errorf("az was called %d times, want %d", n, step.calls)
		}
	}
	logIn(t, openByName(t, dsn))
	if n := calls(); n != 2 {
		t.Errorf("after all pools were closed: az was called %d times, want 2", n)
	}
}

func TestToken_ConnectorsWithOneCredentialShareTokens(t *testing.T) {
	t.Parallel()
	credential := &numbered{life: time.Hour, delay: time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		var all sync.WaitGroup
		for i := range 1000 {
			dsn := bubbleDSN
			if i%2 == 1 {
				dsn += " entra_scope=api://other/.default"
			}
			c := entrapg.NewConnector(dsn, s.options(), entrapg.WithCredential(credential))
			defer c.Close()
			all.Go(func() {
				if err := connect(t, c); err != nil {
					t.Error(err)
				}
				if n := c.Stats().TokenRequests; n != 1 {
					t.Errorf("Stats: %d requests for the scope, want 1", n)
				}
			})
		}
		all.Wait()
		if n := credential.count(); n != 2 {
			t.Errorf("%d requests for two scopes, want 2", n)
		}
	})
}

func TestToken_PoolConfigsWithOneCredentialShareTokens(t *testing.T) {
	credential := &numbered{life: time.Hour}
	s := &pipeServer{}
	for range 3 {
		config := poolConfig(t, bubbleDSN, s.options(), entrapg.WithCredential(credential))
		conn, err := newPool(t, config).Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Release()
	}
	if n := credential.count(); n != 1 {
		t.Errorf("%d requests by three pools, want 1", n)
	}
}

func TestToken_IncomparableCredentialIsNotShared(t *testing.T) {
	s := &pipeServer{}
	calls := 0
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		calls++
		return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	for range 2 {
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential))
		defer c.Close()
		mustConnect(t, c)
	}
	if calls != 2 {
		t.Errorf("%d requests, want 2", calls)
	}
}

func TestToken_CloseDoesNotAffectOthersThatShareIt(t *testing.T) {
	credential := &numbered{life: time.Hour, delay: 10 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		one := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential))
		other := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential))
		defer other.Close()
		var all sync.WaitGroup
		start := time.Now()
		all.Go(func() { // starts the request
			if err := connect(t, one); err == nil || !strings.Contains(err.Error(), "closed") ||
				time.Since(start) != time.Second {
				t.Errorf("after %v: %v, want Close to end the wait after 1s", time.Since(start), err)
			}
		})
		synctest.Wait()
		all.Go(func() { mustConnect(t, other) })
		time.Sleep(time.Second)
		one.Close()
		all.Wait()
		if err := connect(t, one); err == nil {
			t.Error("a closed connector connected with the shared token")
		}
		if n := credential.count(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestToken_ConnectorsWithAndWithoutUserShareIt(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	p := app(t, s)
	createRole(t, s, "other name", p)
	for _, dsn := range []string{s.DSN() + "&user=other%20name", s.DSN(), s.DSN()} {
		db, _ := open(t, dsn, entrapg.WithCredential(p))
		want := p.Name
		if strings.Contains(dsn, "user=") {
			want = "other name"
		}
		if user := sessionUser(t, db); user != want {
			t.Errorf("logged in as %q, want %q", user, want)
		}
	}
	if n, m := s.Tenant.RequestsFor("https://ossrdbms-aad.database.windows.net"), s.Tenant.RequestsFor(
		"https://management.azure.com"); n != 1 ||
		m != 1 {
		t.Errorf("%d requests for the database and %d for Azure Resource Manager, want 1 and 1", n, m)
	}
}

func TestToken_UsernameErrorDoesNotAffectOthersThatShareIt(t *testing.T) {
	credential := &countingOpaque{}
	s := &pipeServer{}
	nameless := entrapg.NewConnector("host=127.0.0.1 sslmode=disable", s.options(), entrapg.WithCredential(credential))
	named := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential))
	defer nameless.Close()
	defer named.Close()
	for range 3 {
		var username *entrapg.UsernameError
		if err := connect(t, nameless); !errors.As(err, &username) {
			t.Errorf("got %v, want a UsernameError", err)
		}
		mustConnect(t, named)
	}
	if credential.calls != 1 {
		t.Errorf("%d requests, want 1", credential.calls)
	}
}

func TestToken_RejectedRoleOfManyConnectorsCausesFewRequests(t *testing.T) {
	credential := &numbered{life: time.Hour}
	s := &pipeServer{reject: rejectEveryLogin}
	keeper := entrapg.NewConnector("host=elsewhere.example.com", entrapg.WithCredential(credential))
	defer keeper.Close()
	for range 100 { // as in a program that opens a pool for each request
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		if err := connect(t, c); err == nil {
			t.Fatal("the login succeeded")
		}
		c.Close()
	}
	if n := credential.count(); n > 10 {
		t.Errorf("%d token requests for 100 connectors, want at most 10", n)
	}
}

func TestToken_RejectedByOneServerRemainsInUseOnAnother(t *testing.T) {
	credential := &numbered{life: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		bad, good := &pipeServer{reject: rejectEveryLogin}, &pipeServer{}
		rejected := make(chan struct{})
		good.reject = func(string) *pgproto3.ErrorResponse {
			<-rejected
			return nil
		}
		one := entrapg.NewConnector(bubbleDSN+" port=5433", bad.options(), entrapg.WithCredential(credential),
			entrapg.WithLogger(nil))
		other := entrapg.NewConnector(bubbleDSN, good.options(), entrapg.WithCredential(credential))
		defer one.Close()
		defer other.Close()
		var all sync.WaitGroup
		all.Go(func() { mustConnect(t, other) })
		synctest.Wait()
		go func() { // after the first rejection has been recorded
			synctest.Wait()
			close(rejected)
		}()
		if err := connect(t, one); err == nil {
			t.Fatal("the login to the bad server succeeded")
		}
		all.Wait()
		mustConnect(t, other)
		if n := credential.count(); n > 2 {
			t.Errorf("%d requests, want at most 2", n)
		}
	})
}

func TestToken_RejectionsByOneServerDoNotExhaustTokensOfAnother(t *testing.T) {
	credential := &numbered{life: time.Hour}
	bad, good := &pipeServer{}, &pipeServer{}
	bad.setReject(rejectEveryLogin)
	rejected := entrapg.NewConnector(bubbleDSN+" port=5433", bad.options(), entrapg.WithCredential(credential),
		entrapg.WithLogger(nil))
	accepted := entrapg.NewConnector(bubbleDSN, good.options(), entrapg.WithCredential(credential))
	defer rejected.Close()
	defer accepted.Close()
	for range 100 {
		if err := connect(t, rejected); err == nil {
			t.Fatal("the rejected login succeeded")
		}
		mustConnect(t, accepted)
	}
	if n := credential.count(); n > 10 {
		t.Errorf("%d token requests for 200 connections, want at most 10", n)
	}
}
