package monitor

import (
	"testing"
	"time"
)

func TestTokens_FailOnlyWhileRequestsFailWithoutToken(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	var none time.Time
	var tokens Tokens
	for _, step := range []struct {
		name     string
		now      int // in minutes
		failures int64
		expiry   time.Time
		failing  bool
		minutes  time.Duration
	}{
		{"nothing was requested", 0, 0, none, false, 0},
		{"the first request fails", 1, 1, none, true, 0},
		{"and still fails", 4, 5, none, true, 3},
		{"a token is fetched", 5, 5, at(65), false, 0},
		{"its refresh fails", 60, 7, at(65), false, 0},
		{"it expires in an idle proxy", 70, 7, at(65), false, 0},
		{"requests fail again", 71, 8, at(65), true, 0},
		{"and still do", 81, 8, at(65), true, 10},
		{"a short token has come and gone", 90, 9, at(89), false, 0},
		{"requests fail once more", 91, 10, at(89), true, 0},
	} {
		d, failing := tokens.Failing(at(step.now), step.failures, step.expiry)
		if failing != step.failing || d != step.minutes*time.Minute {
			t.Errorf("%s: failing %t for %s, want %t for %d minutes", step.name, failing, d, step.failing, step.minutes)
		}
	}
}
