package entrapg

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// onClock is a credential whose tokens expire an hour after now.
type onClock struct {
	now   func() time.Time
	calls int
}

func (c *onClock) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls++
	return azcore.AccessToken{Token: "t" + string(rune('0'+c.calls)), ExpiresOn: c.now().Add(time.Hour)}, nil
}

// TestToken_ClockJumpFailsNoLogin counts the tokens requested after the clock jumps and after
// it jumps back.
func TestToken_ClockJumpFailsNoLogin(t *testing.T) {
	for _, test := range []struct {
		jump         time.Duration
		after, again int // total tokens requested after the jump and after the jump back
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
			credential := &onClock{now: now}
			s := &tokenSource{credential: given(credential), now: now}
			get := func(when string, want int) {
				t.Helper()
				for range 3 {
					got, _, err := s.get(t.Context(), need{logger: quiet})
					if err != nil || !now().Before(got.expires) {
						t.Fatalf("clock set by %v, %s: token %+v, error %v", test.jump, when, got, err)
					}
					synctest.Wait()
				}
				if credential.calls != want {
					t.Errorf("clock set by %v, %s: %d tokens requested, want %d", test.jump, when, credential.calls, want)
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

func TestToken_ClockSetBackDoesNotExtendBackoffAfterHungCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jump := time.Duration(0)
		release := make(chan struct{})
		hung := credentialFunc(func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
			<-release
			return azcore.AccessToken{}, context.Canceled
		})
		s := &tokenSource{credential: given(hung), now: func() time.Time { return time.Now().Add(jump) }}
		for range maxCalls {
			if _, _, err := s.get(t.Context(), need{logger: quiet}); err == nil {
				t.Fatal("no error")
			}
		}
		jump = -10 * time.Hour
		_, _, _ = s.get(t.Context(), need{logger: quiet})
		if calls := s.requests.Load(); calls != maxCalls+1 {
			t.Errorf("%d calls, want one more after the clock is set back", calls)
		}
		close(release)
		synctest.Wait()
	})
}

// afterSleep returns what time.Now returns after the machine slept: the wall clock has
// advanced, the monotonic clock has not. Only package time can create such a Time, so
// afterSleep overwrites the second field, which holds the monotonic reading.
func afterSleep(t *testing.T, slept time.Duration) time.Time {
	now := time.Now()
	after := now.Add(slept)
	(*[2]uint64)(unsafe.Pointer(&after))[1] = (*[2]uint64)(unsafe.Pointer(&now))[1]
	if after.Sub(now) != 0 || after.Round(0).Sub(now.Round(0)) != slept {
		t.Fatalf("package time has changed: %v became %v", now, after)
	}
	return after
}

func TestToken_ExpiresWhileMachineSleeps(t *testing.T) {
	credential := &oneHour{}
	clock := time.Now
	s := sourceOn(credential, func() time.Time { return clock() })
	if _, _, err := s.get(t.Context(), need{logger: quiet}); err != nil {
		t.Fatal(err)
	}
	clock = func() time.Time { return afterSleep(t, time.Hour+time.Minute) }
	// The new token has expired on this clock too, but it was requested.
	if _, _, err := s.get(t.Context(), need{logger: quiet}); err == nil || credential.calls != 2 {
		t.Errorf("%d token requests, error %v; want 2 requests and an error", credential.calls, err)
	}
}

func TestToken_ClockSetBackDoesNotExtendBackoffAfterRejection(t *testing.T) {
	credential := &oneHour{}
	clock := time.Now
	s := sourceOn(credential, func() time.Time { return clock() })
	a := &account{source: s, logger: quiet}
	for range 5 { // until requests are paced
		tok, _, _, err := a.get(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		a.refuse("app", tok)
	}
	if s.current.Load() == nil {
		t.Fatal("requests are not paced")
	}
	clock = func() time.Time { return time.Now().Add(-10 * time.Hour) }
	a.refuse("app", s.current.Load())
	if s.current.Load() != nil {
		t.Error("the rejected token was not evicted")
	}
}

func TestToken_ConnectorsDroppedWithoutCloseReleaseSource(t *testing.T) {
	credential := &oneHour{}
	for range 10 {
		NewConnector("host=127.0.0.1 user=app sslmode=disable", WithCredential(credential))
	}
	shared := func() bool {
		defaultDriver.sources.mu.Lock()
		defer defaultDriver.sources.mu.Unlock()
		for key := range defaultDriver.sources.sources {
			if key.credential == credential {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(time.Minute); shared(); time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(deadline) {
			t.Fatal("the shared token source was not released")
		}
	}
}
