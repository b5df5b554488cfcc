package entrapg

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// onClock is a credential whose tokens live an hour on the clock of its machine.
type onClock struct {
	now   func() time.Time
	calls int
}

func (c *onClock) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls++
	return azcore.AccessToken{Token: "t" + string(rune('0'+c.calls)), ExpiresOn: c.now().Add(time.Hour)}, nil
}

// TestClockThatJumpsFailsNobody says how many tokens are requested after the
// machine's clock has jumped and then gone back to where it was. No login fails.
func TestClockThatJumpsFailsNobody(t *testing.T) {
	for _, test := range []struct {
		jump         time.Duration
		after, again int // tokens requested in all, after the jump and after the way back
	}{
		{jump: 30 * time.Minute, after: 1, again: 1},
		{jump: 57 * time.Minute, after: 2, again: 2}, // close to the expiry: in the background
		{jump: 2 * time.Hour, after: 2, again: 2},    // past it
		{jump: 365 * 24 * time.Hour, after: 2, again: 2},
		{jump: -30 * time.Minute, after: 1, again: 1}, // the token serves on; the server knows better, and refuses it in time
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
			get("before", 1)
			jump = test.jump
			get("after", test.after)
			jump = 0
			get("on the way back", test.again)
		})
	}
}

func TestClockThatIsSetBackDoesNotProlongThePauseAfterHungCalls(t *testing.T) {
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
			t.Errorf("%d calls: the credential is not tried again for hours", calls)
		}
		close(release)
		synctest.Wait()
	})
}
