package entrapg

import (
	"testing"
	"time"
	"unsafe"
)

// afterSleep is what time.Now returns on a machine that has slept: the wall
// clock has gone on, the monotonic one has not. Only package time can make such
// a Time, so this reaches into its second field, where the monotonic reading is.
func afterSleep(t *testing.T, slept time.Duration) time.Time {
	now := time.Now()
	after := now.Add(slept)
	(*[2]uint64)(unsafe.Pointer(&after))[1] = (*[2]uint64)(unsafe.Pointer(&now))[1]
	if after.Sub(now) != 0 || after.Round(0).Sub(now.Round(0)) != slept {
		t.Fatalf("package time has changed: %v became %v", now, after)
	}
	return after
}

func TestLaptopThatSleptAsksForANewToken(t *testing.T) {
	credential := &oneHour{}
	clock := time.Now
	s := sourceOn(credential, func() time.Time { return clock() })
	if _, _, err := s.get(t.Context(), need{logger: quiet}); err != nil {
		t.Fatal(err)
	}
	clock = func() time.Time { return afterSleep(t, time.Hour+time.Minute) }
	// The new token has expired on this clock too, but it was asked for.
	if _, _, err := s.get(t.Context(), need{logger: quiet}); err == nil || credential.calls != 2 {
		t.Errorf("%d token requests, error %v: the token that expired during the sleep was used", credential.calls, err)
	}
}

func TestClockThatIsSetBackProlongsNoPause(t *testing.T) {
	credential := &oneHour{}
	clock := time.Now
	s := sourceOn(credential, func() time.Time { return clock() })
	a := &account{source: s, logger: quiet}
	for range 5 { // until there is a pause
		tok, _, _, err := a.get(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		a.refuse("app", tok)
	}
	if s.current.Load() == nil {
		t.Fatal("there is no pause")
	}
	clock = func() time.Time { return time.Now().Add(-10 * time.Hour) }
	a.refuse("app", s.current.Load())
	if s.current.Load() != nil {
		t.Error("the refused token is kept for hours")
	}
}
