package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
)

func TestSoakThatIsEndedEarlyPrintsItsPage(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var page bytes.Buffer
	progress := writerFunc(func(b []byte) (int, error) { // the first line of it ends the soak
		cancel()
		return len(b), nil
	})
	well, err := soak(ctx, time.Hour, 1, &page, progress)
	if err != nil || !well {
		t.Errorf("well: %v, error %v", well, err)
	}
	for _, want := range []string{"of 1h0m0s, seed 1", "logins", "0 lost", "goroutines", "faults injected", "well: nothing lost"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page does not have %q:\n%s", want, &page)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestPageComplainsOfWhatIsOutOfBounds(t *testing.T) {
	fine := func() *page {
		return &page{ledger: counts{committed: 9, found: 10}, before: 3, after: 3, start: measurement{heap: 1 << 20}, end: measurement{heap: 2 << 20}}
	}
	for name, spoil := range map[string]func(*page){
		"a row lost":           func(p *page) { p.ledger.lost = 1 },
		"nothing done":         func(p *page) { p.ledger.committed = 0 },
		"a goroutine left":     func(p *page) { p.after = 4 },
		"a heap that grows":    func(p *page) { p.end.heap = 100 << 20 },
		"a strange error":      func(p *page) { p.nFouls = 1 },
		"":                     func(*page) {},
		"rows of no outcome":   func(p *page) { p.ledger.found = 1000 },
		"fewer goroutines":     func(p *page) { p.after = 2 },
		"a heap that breathes": func(p *page) { p.end.heap = 20 << 20 },
	} {
		p := fine()
		spoil(p)
		harmless := name == "" || strings.HasPrefix(name, "rows") || strings.HasPrefix(name, "fewer") || strings.HasSuffix(name, "breathes")
		if complaints := p.complaints(); (len(complaints) == 0) != harmless {
			t.Errorf("%s: complaints %q", name, complaints)
		}
	}
}

func TestAuditFindsWhatIsLost(t *testing.T) {
	s, err := postgres()
	if err != nil {
		t.Fatal(err)
	}
	table := "audit " + rand.Text()
	l, err := newLedger(t.Context(), s.AdminDSN(), table, 2, sqlDB)
	if err != nil {
		t.Fatal(err)
	}
	// Of worker 0, 2 is missing and 3 has no known outcome; of worker 1, 1 has none, and is there.
	for _, w := range l.writers {
		for n := range int64(3) {
			w.tried++
			unseen := error(nil)
			if w.worker == 0 && n == 2 || w.worker == 1 && n == 0 {
				unseen = io.ErrUnexpectedEOF
			}
			w.learn(n+1, unseen)
		}
	}
	admin(t, s, "insert into "+l.table+` values ('sql.DB', 0, 1), ('sql.DB', 1, 1), ('sql.DB', 1, 2), ('sql.DB', 1, 3)`)
	got, err := l.audit(t.Context(), s.AdminDSN())
	if want := (counts{committed: 4, found: 4, lost: 1}); err != nil || got != want {
		t.Errorf("%+v, error %v, want %+v", got, err, want)
	}
}

func TestUmpireAllowsWhatTheFaultDoesAndNothingElse(t *testing.T) {
	f := &fault{name: "cut", allows: map[string][]string{sqlDB: {network}}, within: time.Minute}
	for _, test := range []struct {
		what  string
		set   func(*umpire)
		pool  string
		err   error
		fouls int
	}{
		{"what is allowed", func(u *umpire) { u.begin(f, time.Now()) }, sqlDB, io.EOF, 0},
		{"soon after its end", func(u *umpire) { u.begin(f, time.Now()); u.end() }, sqlDB, io.EOF, 0},
		{"on the other pool", func(u *umpire) { u.begin(f, time.Now()) }, pgxPool, io.EOF, 1},
		{"another cause", func(u *umpire) { u.begin(f, time.Now()) }, sqlDB, context.DeadlineExceeded, 1},
		{"too early", func(u *umpire) { u.begin(f, time.Now().Add(time.Minute)) }, sqlDB, io.EOF, 1},
		{"too late", func(u *umpire) { u.begin(f, time.Now()); u.ended = time.Now().Add(-2 * time.Minute) }, sqlDB, io.EOF, 1},
		{"without a fault", func(*umpire) {}, sqlDB, io.EOF, 1},
	} {
		u := &umpire{}
		test.set(u)
		u.record(test.pool, test.err)
		if fouls, n := u.verdict(); n != test.fouls {
			t.Errorf("%s: %q", test.what, fouls)
		}
	}
}

func TestEveryErrorHasOneCause(t *testing.T) {
	said := &pgconn.PgError{Code: "28000"}
	for _, test := range []struct {
		err  error
		want string
	}{
		{&entrapg.TokenError{Err: context.DeadlineExceeded}, noToken},
		{fmt.Errorf("%w; %w", &entrapg.LoginError{Err: said}, &entrapg.TokenError{Err: io.EOF}), noToken},
		{&entrapg.LoginError{Err: said}, "login 28000"},
		{said, "query 28000"},
		{context.DeadlineExceeded, deadline},
		{driver.ErrBadConn, network},
		{io.ErrUnexpectedEOF, network},
		{errors.New("strange"), "other: strange"},
	} {
		if got := causeOf(test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
}
