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

func TestSoak_PrintsReportIfEndedEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var printed bytes.Buffer
	progress := writerFunc(func(b []byte) (int, error) { // the first line ends the soak
		cancel()
		return len(b), nil
	})
	ok, err := soak(ctx, time.Hour, 1, &printed, progress)
	if err != nil || !ok {
		t.Errorf("ok: %v, error %v", ok, err)
	}
	for _, want := range []string{
		"of 1h0m0s, seed 1", "logins", "0 lost", "goroutines", "faults injected",
		"passed: no rows lost",
	} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("the report does not contain %q:\n%s", want, &printed)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestReport_ListsProblems(t *testing.T) {
	fine := func() *report {
		return &report{
			ledger: counts{committed: 9, found: 10},
			before: 3,
			after:  3,
			start:  measurement{heap: 1 << 20},
			end:    measurement{heap: 2 << 20},
		}
	}
	for name, spoil := range map[string]func(*report){
		"a row lost":         func(p *report) { p.ledger.lost = 1 },
		"nothing done":       func(p *report) { p.ledger.committed = 0 },
		"a goroutine left":   func(p *report) { p.after = 4 },
		"a heap that grows":  func(p *report) { p.end.heap = 100 << 20 },
		"a strange error":    func(p *report) { p.violationCount = 1 },
		"":                   func(*report) {},
		"rows of no outcome": func(p *report) { p.ledger.found = 1000 },
		"fewer goroutines":   func(p *report) { p.after = 2 },
		"a heap that varies": func(p *report) { p.end.heap = 20 << 20 },
	} {
		p := fine()
		spoil(p)
		harmless := name == "" || strings.HasPrefix(name, "rows") || strings.HasPrefix(name, "fewer") ||
			strings.HasSuffix(name, "varies")
		if problems := p.problems(); (len(problems) == 0) != harmless {
			t.Errorf("%s: problems %q", name, problems)
		}
	}
}

func TestLedger_AuditFindsLostRows(t *testing.T) {
	s, err := postgres()
	if err != nil {
		t.Fatal(err)
	}
	table := "audit " + rand.Text()
	l, err := newLedger(t.Context(), s.AdminDSN(), table, 2, sqlDB)
	if err != nil {
		t.Fatal(err)
	}
	// Worker 0: row 2 is missing, and the outcome of 3 is unknown. Worker 1: the outcome of 1 is
	// unknown, but the row exists.
	for _, w := range l.writers {
		for n := range int64(3) {
			w.tried++
			unseen := error(nil)
			if w.worker == 0 && n == 2 || w.worker == 1 && n == 0 {
				unseen = io.ErrUnexpectedEOF
			}
			w.record(n+1, unseen)
		}
	}
	admin(t, s, "insert into "+l.table+` values ('sql.DB', 0, 1), ('sql.DB', 1, 1), ('sql.DB', 1, 2), ('sql.DB', 1, 3)`)
	got, err := l.audit(t.Context(), s.AdminDSN())
	if want := (counts{committed: 4, found: 4, lost: 1}); err != nil || got != want {
		t.Errorf("%+v, error %v, want %+v", got, err, want)
	}
}

func TestChecker_AllowsOnlyEffectsOfTheFault(t *testing.T) {
	f := &fault{name: "cut", allows: map[string][]string{sqlDB: {network}}, within: time.Minute}
	for _, test := range []struct {
		what       string
		set        func(*checker)
		pool       string
		started    time.Duration // before it failed
		err        error
		violations int
	}{
		{"an allowed cause", func(u *checker) { u.begin(f, time.Now()) }, sqlDB, 0, io.EOF, 0},
		{"soon after its end", func(u *checker) { u.begin(f, time.Now()); u.end() }, sqlDB, 0, io.EOF, 0},
		{"on the other pool", func(u *checker) { u.begin(f, time.Now()) }, pgxPool, 0, io.EOF, 1},
		{"another cause", func(u *checker) { u.begin(f, time.Now()) }, sqlDB, 0, context.DeadlineExceeded, 1},
		{"too early", func(u *checker) { u.begin(f, time.Now().Add(time.Minute)) }, sqlDB, 0, io.EOF, 1},
		{"too late", func(u *checker) { u.begin(f, time.Now()); u.ended = time.Now().Add(-2 * time.Minute) }, sqlDB, 0, io.EOF, 1},
		{
			"in flight at its end",
			func(u *checker) { u.begin(f, time.Now()); u.ended = time.Now().Add(-2 * time.Minute) },
			sqlDB, time.Hour, io.EOF, 0,
		},
		{"without a fault", func(*checker) {}, sqlDB, 0, io.EOF, 1},
	} {
		u := &checker{}
		test.set(u)
		u.record(test.pool, time.Now().Add(-test.started), test.err)
		if violations, n := u.verdict(); n != test.violations {
			t.Errorf("%s: %q", test.what, violations)
		}
	}
}

func TestCause_IsKnownForEveryError(t *testing.T) {
	server := &pgconn.PgError{Code: "28000"}
	for _, test := range []struct {
		err  error
		want string
	}{
		{&entrapg.TokenError{Err: context.DeadlineExceeded}, noToken},
		{fmt.Errorf("%w; %w", &entrapg.LoginError{Err: server}, &entrapg.TokenError{Err: io.EOF}), noToken},
		{&entrapg.LoginError{Err: server}, "login 28000"},
		{server, "query 28000"},
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
