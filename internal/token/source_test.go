package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// credentialFunc is a credential that calls a function.
type credentialFunc func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error)

func (f credentialFunc) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return f(ctx, o)
}

// numbered returns a source of the tokens token-1, token-2 and so on, which are
// valid for an hour on the source's clock, and the number of calls.
func numbered(now func() time.Time) (*Source, *int) {
	calls := new(int)
	return sourceOf(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
		*calls++
		return azcore.AccessToken{Token: fmt.Sprintf("token-%d", *calls), ExpiresOn: now().Add(time.Hour)}, nil
	}, now), calls
}

func sourceOf(get credentialFunc, now func() time.Time) *Source {
	return &Source{Scope: "scope", Credential: func() (azcore.TokenCredential, error) { return get, nil }, Now: now}
}

// from returns a request with the given key.
func from(key any) Request { return Request{Key: key, Log: slog.New(slog.DiscardHandler)} }

func mustGet(t *testing.T, s *Source, key any) *Token {
	t.Helper()
	got, _, err := s.Get(t.Context(), from(key))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestSource_ClockJumpCausesNoErrors counts the tokens requested after the clock
// jumps and after it jumps back.
func TestSource_ClockJumpCausesNoErrors(t *testing.T) {
	for _, test := range []struct {
		jump         time.Duration
		after, again int // tokens requested after the jump and after the jump back
	}{
		{jump: 30 * time.Minute, after: 1, again: 1},
		{jump: 57 * time.Minute, after: 2, again: 2}, // near expiry: refreshed in the background
		{jump: 2 * time.Hour, after: 2, again: 2},    // expired
		{jump: 365 * 24 * time.Hour, after: 2, again: 2},
		{jump: -30 * time.Minute, after: 1, again: 1}, // the token remains in use until the server rejects it
		{jump: -365 * 24 * time.Hour, after: 1, again: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			jump := time.Duration(0)
			now := func() time.Time { return time.Now().Add(jump) }
			s, calls := numbered(now)
			get := func(when string, want int) {
				t.Helper()
				for range 3 {
					if got := mustGet(t, s, 1); !now().Before(got.Expires) {
						t.Fatalf("clock set by %v, %s: token expired", test.jump, when)
					}
					synctest.Wait()
				}
				if *calls != want {
					t.Errorf("clock set by %v, %s: %d tokens requested, want %d", test.jump, when, *calls, want)
				}
			}
			get("before the jump", 1)
			jump = test.jump
			get("after the jump", test.after)
			jump = 0
			get("after the jump back", test.again)
		})
	}
}

// afterSleep returns what time.Now returns after the machine slept: the wall
// clock has advanced, the monotonic clock has not. Only package time can create
// such a Time, so afterSleep overwrites the field with the monotonic reading.
func afterSleep(t *testing.T, slept time.Duration) time.Time {
	now := time.Now()
	after := now.Add(slept)
	(*[2]uint64)(unsafe.Pointer(&after))[1] = (*[2]uint64)(unsafe.Pointer(&now))[1]
	if after.Sub(now) != 0 || after.Round(0).Sub(now.Round(0)) != slept {
		t.Fatalf("package time has changed: %v became %v", now, after)
	}
	return after
}

func TestSource_TokenExpiresWhileMachineSleeps(t *testing.T) {
	clock := time.Now
	s, calls := numbered(func() time.Time { return clock() })
	mustGet(t, s, 1)
	clock = func() time.Time { return afterSleep(t, time.Hour+time.Minute) }
	if _, fetched, _ := s.Get(t.Context(), from(1)); *calls != 2 {
		t.Errorf("%d tokens requested, want 2; fetched %t", *calls, fetched)
	}
}

func TestSource_ClockSetBackDoesNotExtendBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jump := time.Duration(0)
		calls := 0
		s := sourceOf(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
			calls++
			return azcore.AccessToken{}, errors.New("down")
		}, func() time.Time { return time.Now().Add(jump) })
		for range 5 {
			s.Get(t.Context(), from(1))
		}
		if calls != 2 {
			t.Fatalf("%d calls, want 2 and then a backoff", calls)
		}
		jump = -10 * time.Hour
		s.Get(t.Context(), from(1))
		if calls != 3 {
			t.Errorf("%d calls, want another one: the backoff lasts for hours", calls)
		}
	})
}

// hung is a credential whose first call ignores its context until release.
func hung(release chan struct{}, first azcore.AccessToken) (*Source, *atomic.Int64) {
	calls := new(atomic.Int64)
	return sourceOf(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
		if calls.Add(1) == 1 {
			<-release
			return first, nil
		}
		return azcore.AccessToken{Token: "second", ExpiresOn: time.Now().Add(time.Hour)}, nil
	}, nil), calls
}

func TestSource_CachesTokenOfCallThatTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s, calls := hung(release, azcore.AccessToken{Token: "late", ExpiresOn: time.Now().Add(2 * time.Hour)})
		if _, _, err := s.Get(t.Context(), from(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want a timeout", err)
		}
		close(release)
		synctest.Wait()
		if got := mustGet(t, s, 1); got.Secret() != "late" || calls.Load() != 1 {
			t.Errorf("token %q after %d calls, want the late one", got.Secret(), calls.Load())
		}
	})
}

func TestSource_LateTokenDoesNotReplaceOneThatExpiresLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s, _ := hung(release, azcore.AccessToken{Token: "late", ExpiresOn: time.Now().Add(time.Hour)})
		s.Get(t.Context(), from(1))
		mustGet(t, s, 1)
		close(release)
		synctest.Wait()
		if got := mustGet(t, s, 1); got.Secret() != "second" {
			t.Errorf("token %q, want the second one", got.Secret())
		}
	})
}

func TestSource_LateTokenIsDroppedAfterClose(t *testing.T) {
	for name, closeAt := range map[string]time.Duration{"during the call": time.Second, "after its timeout": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				s, _ := hung(release, azcore.AccessToken{Token: "late", ExpiresOn: time.Now().Add(time.Hour)})
				go s.Get(t.Context(), from(1))
				time.Sleep(closeAt)
				s.Close()
				close(release)
				synctest.Wait()
				if _, _, current := s.Stats(); current != nil {
					t.Error("the token is cached")
				}
				if _, _, err := s.Get(t.Context(), from(1)); !errors.Is(err, ErrClosed) {
					t.Errorf("got %v, want ErrClosed", err)
				}
			})
		})
	}
}

func TestSource_RejectionConcernsOnlyItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, calls := numbered(time.Now)
		first := mustGet(t, s, "good")
		s.Reject("bad", first)
		if got := mustGet(t, s, "good"); got != first || *calls != 1 {
			t.Errorf("the other key got %q after %d calls", got.Secret(), *calls)
		}
		if s.Fresh("good") != first || s.Fresh("bad") != nil {
			t.Error("Fresh: want the token for the other key alone")
		}
		if got := mustGet(t, s, "bad"); got.Secret() != "token-2" {
			t.Errorf("the key that rejected the token got %q", got.Secret())
		}
	})
}

func TestSource_RejectedTokenRemainsIfCredentialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		calls := 0
		s := sourceOf(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
			if calls++; down {
				return azcore.AccessToken{}, errors.New("down")
			}
			return azcore.AccessToken{Token: "first", ExpiresOn: time.Now().Add(time.Hour)}, nil
		}, nil)
		first := mustGet(t, s, "bad")
		s.Reject("bad", first)
		down = true
		for range 1000 {
			if got := mustGet(t, s, "bad"); got != first {
				t.Fatal("another token")
			}
		}
		if _, err := s.Replace(t.Context(), from("bad"), first); err == nil ||
			!strings.Contains(err.Error(), "next attempt in") {
			t.Errorf("Replace: got %v, want the credential's error and when it is tried again", err)
		}
		if calls > 5 { // the first, and two with and without claims
			t.Errorf("%d calls, want 5 at most", calls)
		}
	})
}

func TestSource_SendsClaimsOnlyForAnotherToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var claims []string
		s := sourceOf(func(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
			claims = append(claims, o.Claims)
			if o.Claims != "" {
				return azcore.AccessToken{}, errors.New("claims are not supported")
			}
			return azcore.AccessToken{Token: fmt.Sprint("token-", len(claims)), ExpiresOn: time.Now().Add(time.Hour)}, nil
		}, nil)
		first := mustGet(t, s, 1)
		s.Reject(1, first)
		if got := mustGet(t, s, 1); got.Secret() != "token-3" {
			t.Errorf("got %q, want the token of the call without claims", got.Secret())
		}
		if fmt.Sprint(claims) != fmt.Sprint([]string{"", newerThanNow, ""}) {
			t.Errorf("claims: %q", claims)
		}
	})
}

func TestSource_RateLimitsRenewalsForAllKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, calls := numbered(time.Now)
		good := mustGet(t, s, "good")
		s.Accept("good", good)
		for key := range 3000 {
			s.Reject(key, mustGet(t, s, key))
			mustGet(t, s, key)
		}
		if *calls > 4 {
			t.Errorf("%d calls for 3,000 rejected keys, want 4 at most", *calls)
		}
		// A key that had accepted the token before needs another one without delay.
		current := mustGet(t, s, "good")
		s.Accept("good", current)
		s.Reject("good", current)
		if got := mustGet(t, s, "good"); got.Secret() == current.Secret() {
			t.Error("a revoked token was not replaced")
		}
		before := *calls
		for range 600 {
			time.Sleep(time.Second)
			s.Reject("bad", mustGet(t, s, "bad"))
		}
		if n := *calls - before; n < 5 || n > 20 {
			t.Errorf("%d calls in ten minutes for a key that is always rejected, want 5 to 20", n)
		}
	})
}

// TestSource_LimitsRenewalsThatSucceed uses a server that alternately accepts and rejects tokens.
func TestSource_LimitsRenewalsThatSucceed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, calls := numbered(time.Now)
		for range 10 * maxRenewals {
			current := mustGet(t, s, 1)
			s.Accept(1, current)
			s.Reject(1, current)
			s.Replace(t.Context(), from(1), current)
		}
		if *calls > maxRenewals+5 {
			t.Errorf("%d calls, want %d at most", *calls, maxRenewals+5)
		}
		time.Sleep(time.Hour)
		before := *calls
		current := mustGet(t, s, 1)
		s.Accept(1, current)
		s.Reject(1, current)
		if _, err := s.Replace(t.Context(), from(1), current); err != nil || *calls <= before {
			t.Errorf("an hour later: %v", err)
		}
	})
}

func TestSource_CallerGetsErrorAndCauseOfItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sourceOf(func(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
			<-ctx.Done()
			return azcore.AccessToken{}, ctx.Err()
		}, nil)
		defer s.Close()
		cause := errors.New("another goroutine failed")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		if _, _, err := s.Get(ctx, from(1)); !errors.Is(err, cause) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled and its cause", err)
		}
	})
}

func TestSource_RemembersBoundedNumberOfKeys(t *testing.T) {
	s, _ := numbered(time.Now)
	first := mustGet(t, s, 0)
	for key := range 10 * maxOutcomes {
		s.Reject(key, first)
	}
	if len(s.outcomes) != maxOutcomes {
		t.Errorf("%d keys, want %d", len(s.outcomes), maxOutcomes)
	}
}

func TestSource_BacksOffAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		down := true
		s := sourceOf(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
			if at = append(at, time.Since(start)); down {
				return azcore.AccessToken{}, errors.New("down")
			}
			return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
		}, nil)
		for range 60_000 { // ten minutes
			if _, _, err := s.Get(t.Context(), from(1)); err == nil || !strings.Contains(err.Error(), "down") {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if at[1] > 10*time.Millisecond {
			t.Errorf("the second call came after %v; the first failure causes no delay", at[1])
		}
		for n := 2; n < len(at); n++ {
			longest := doubled(500*time.Millisecond, n-2, 15*time.Second)
			if delay := at[n] - at[n-1]; delay < longest*3/4 || delay > longest+20*time.Millisecond {
				t.Errorf("delay %d: %v, want %v to %v", n, delay, longest*3/4, longest)
			}
		}
		down = false
		time.Sleep(15 * time.Second)
		mustGet(t, s, 1)
	})
}

func TestSource_HonorsRetryAfter(t *testing.T) {
	for header, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, 24 * time.Hour: maxRetryAfter} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			s := sourceOf(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
				calls++
				return azcore.AccessToken{}, &azcore.ResponseError{StatusCode: http.StatusTooManyRequests}
			}, nil)
			s.RetryAfter = func(error) time.Duration { return header }
			s.Get(t.Context(), from(1))
			time.Sleep(want - time.Nanosecond)
			s.Get(t.Context(), from(1))
			if calls != 1 {
				t.Errorf("%d calls before %v", calls, want)
			}
			time.Sleep(time.Nanosecond)
			s.Get(t.Context(), from(1))
			if calls != 2 {
				t.Errorf("%d calls after %v", calls, want)
			}
		})
	}
}

// A countingError fails the race detector if its text is read by two goroutines
// at once, as that of azidentity.AuthenticationFailedError does.
type countingError struct{ reads int }

func (e *countingError) Error() string {
	e.reads++
	return "failed"
}

func TestSource_SharedErrorCanBeReadByAllCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // on a slow machine, the pause after two calls could end
		failed := &countingError{}
		s := sourceOf(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
			return azcore.AccessToken{}, failed
		}, nil)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				_, _, err := s.Get(t.Context(), from(1))
				if !errors.Is(err, failed) || !strings.Contains(err.Error(), "failed") {
					t.Errorf("got %v", err)
				}
			})
		}
		all.Wait()
		if failed.reads > 2 {
			t.Errorf("the error was read %d times", failed.reads)
		}
	})
}

// FuzzNewToken validates arbitrary tokens with arbitrary lifetimes.
func FuzzNewToken(f *testing.F) {
	for _, seed := range []string{"", "token", "a.b.c", " a.b.c", "a.b.c\x00", `"a.b.c"`, strings.Repeat("x", MaxLen+1)} {
		f.Add(seed, int64(time.Hour), int64(0))
	}
	f.Fuzz(func(t *testing.T, value string, life, refresh int64) {
		now := time.Now()
		got, err := newToken(azcore.AccessToken{
			Token: value, ExpiresOn: now.Add(time.Duration(life)), RefreshOn: now.Add(time.Duration(refresh)),
		}, now)
		if err != nil {
			if len(value) > 20 && strings.Contains(err.Error(), value) {
				t.Errorf("the error contains the token: %v", err)
			}
			return
		}
		switch {
		case got.Secret() != value || value == "" || len(value) > MaxLen || strings.ContainsAny(value, "\x00 \t\r\n\"'"):
			t.Errorf("an invalid token was accepted: %q", value)
		case !now.Before(got.Expires) || got.refresh.After(got.Expires) || !got.refresh.After(wall(now).Add(-1)):
			t.Errorf("expires in %v, is refreshed in %v", got.Expires.Sub(now), got.refresh.Sub(now))
		}
	})
}
