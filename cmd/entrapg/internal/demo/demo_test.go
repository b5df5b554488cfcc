package demo

import (
	"testing"
	"time"
)

// While a new token is requested, the row shows the one that is still in use.
func TestDemo_ShowsNumberOfTokenInUse(t *testing.T) {
	start := time.Now()
	first, second := start.Add(4*time.Second), start.Add(7*time.Second)
	r := &requests{started: 3, expiries: []time.Time{first, second}}
	for expiry, want := range map[time.Time]int{first: 1, second: 2, {}: 0} {
		if got := r.number(expiry); got != want {
			t.Errorf("%v: no. %d, want %d", expiry, got, want)
		}
	}
}

func TestDemo_SlowestConnectIsSplitByRequests(t *testing.T) {
	start := time.Now()
	at := func(from, to int) span {
		return span{start.Add(time.Duration(from) * time.Millisecond), start.Add(time.Duration(to) * time.Millisecond)}
	}
	p := &pool{
		requests: &requests{spans: []span{at(0, 300), at(1000, 1300), at(2000, 2300)}},
		connects: []span{
			at(10, 900),                                  // waits for the first token
			at(400, 420), at(1400, 1450), at(1290, 1330), // 40 ms begin in the second request
			at(900, 960), at(1999, 2010), at(2301, 2311), at(1500, 1520), // 11 ms end in the third
		},
	}
	if during, otherwise := p.slowest(); during != 40*time.Millisecond || otherwise != 60*time.Millisecond {
		t.Errorf("%v during requests, %v otherwise", during, otherwise)
	}
	if during, otherwise := (&pool{requests: &requests{}}).slowest(); during != 0 || otherwise != 0 {
		t.Errorf("no requests: %v, %v", during, otherwise)
	}
}
