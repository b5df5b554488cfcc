package engine_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestSession_UsesSettingsOfClient(t *testing.T) {
	s := server(t)
	app := newIdentity(t, s)
	p := start(t, &engine.Server{Upstream: to(t, s, app), Password: password})
	admin(t, s, "drop database if exists shop", "create database shop")
	conn := p.connect(t, "dbname=shop application_name=till client_encoding=LATIN1 options='-c statement_timeout=1234ms -c search_path=s'")
	for setting, want := range map[string]string{
		"current_user":                         app.Name,
		"current_database()":                   "shop",
		"current_setting('application_name')":  "till",
		"current_setting('client_encoding')":   "LATIN1",
		"current_setting('statement_timeout')": "1234ms",
		"current_setting('search_path')":       "s",
	} {
		if got := query(t, conn, "select "+setting); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
}

func TestSession_ForwardsLongSettings(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	long := strings.Repeat("x", 9000) // a startup message is limited to 10,000 bytes
	conn := p.connect(t, "search_path="+long)
	if got := query(t, conn, "select current_setting('search_path')"); got != long {
		t.Errorf("search_path has %d bytes", len(got))
	}
}

// TestSession_StartsAfterRequestsForEncryption requests TLS and GSSAPI in each
// valid order, and in some invalid ones.
func TestSession_StartsAfterRequestsForEncryption(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	const tls, gss = "\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x08\x04\xd2\x16\x30"
	for _, test := range []struct {
		requests []string
		answers  string
	}{
		{[]string{gss}, "N"},
		{[]string{tls}, "N"},
		{[]string{gss, tls}, "NN"},
		{[]string{tls, gss}, "NN"},
		{[]string{gss, gss}, "NE"},
		{[]string{tls, gss, tls}, "NNE"},
	} {
		client := dialWire(t, p.addr.Network(), p.addr.String())
		answers := make([]byte, len(test.requests))
		for i, request := range test.requests {
			client.write([]byte(request))
			if _, err := io.ReadFull(client, answers[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if string(answers) != test.answers {
			t.Errorf("%q is answered %q, want %q", test.requests, answers, test.answers)
		}
		if strings.HasSuffix(test.answers, "E") {
			continue
		}
		client.startup("3.0", "user", "client", "database", "postgres")
		if kinds := kindsOf(client.untilReady()); !matchKinds(kinds, "RS+KZ") {
			t.Errorf("%q: the session begins with %s", test.requests, kinds)
		}
	}
}

// TestSession_StartsLikeDirectSession compares the messages that a client gets before its
// first query with those that the server itself sends.
func TestSession_StartsLikeDirectSession(t *testing.T) {
	s := server(t)
	app := newIdentity(t, s)
	p := start(t, &engine.Server{Upstream: to(t, s, app)})
	direct, err := pgx.ParseConfig(s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	network, address := pgconn.NetworkAddress(direct.Host, direct.Port)
	admin(t, s, fmt.Sprintf("alter role %s set client_min_messages = 'notice'", pgx.Identifier{app.Name}.Sanitize()))
	for _, version := range []string{"3.0", "3.2", "3.9999"} {
		client := dialWire(t, p.addr.Network(), p.addr.String())
		client.startup(version, "user", "client", "database", "postgres", "TimeZone", "Asia/Tokyo", "application_name", "x", "_pq_.unknown", "1")
		got := client.untilReady()
		server := dialWire(t, network, address)
		server.startup(version, "user", app.Name, "database", "postgres", "TimeZone", "Asia/Tokyo", "application_name", "x", "_pq_.unknown", "1")
		want := server.untilAuthentication() // the server's answer to the version
		if len(want) > 0 && got[0] != want[0] {
			t.Errorf("%s: the client gets %q first, the server sends %q", version, got[0], want[0])
		}
		kinds := kindsOf(got)
		if want := "v?RS+KZ"; !matchKinds(kinds, want) {
			t.Errorf("%s: the client gets messages %s, want %s", version, kinds, want)
		}
	}
}

func TestSession_UsesDatabaseOfDSNByDefault(t *testing.T) {
	s := server(t)
	admin(t, s, "drop database if exists fallback", "create database fallback")
	p := start(t, &engine.Server{Upstream: upstream(t, strings.Replace(s.DSN(), "/postgres?", "/fallback?application_name=of%20the%20DSN&", 1),
		withApp(newIdentity(t, s))...)})
	client := dialWire(t, p.addr.Network(), p.addr.String())
	client.startup("3.0", "user", "client")
	client.untilReady()
	client.send('Q', "select current_database() || ', ' || current_setting('application_name')\x00")
	if got := strings.Join(client.untilReady(), ""); !strings.Contains(got, "fallback, of the DSN") {
		t.Errorf("got %q", got)
	}
}

func TestSession_OutlivesTokens(t *testing.T) {
	s := server(t)
	u := to(t, s, newIdentity(t, s))
	p := start(t, &engine.Server{Upstream: u})
	inject(t, s, entrapgtest.Faults{TokenLife: 2 * time.Second})
	var conn *pgx.Conn
	await(t, "a login before the token expires", func() (in bool) {
		var err error
		conn, err = p.tryConnect(t, "")
		return err == nil
	})
	first := u.Stats().TokenExpiry
	s.SetFaults(entrapgtest.Faults{})
	await(t, "the token to expire", func() bool { return time.Now().After(first) })
	query(t, conn, "select 'still there'")
	query(t, p.connect(t, ""), "select 'a new session'")
	if !u.Stats().TokenExpiry.After(first) {
		t.Error("the second session used the expired token")
	}
}

func TestSession_ManyShareOneToken(t *testing.T) {
	s := server(t)
	u := to(t, s, newIdentity(t, s))
	p := start(t, &engine.Server{Upstream: u})
	for range 20 {
		p.connect(t, "").Close(t.Context())
	}
	if n := u.Stats().TokenRequests; n > 2 { // the user may need one for Azure Resource Manager
		t.Errorf("%d token requests for 20 sessions", n)
	}
}

func TestSession_CopiesBothWays(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), Password: password})
	conn := p.connect(t, "")
	if _, err := conn.Exec(t.Context(), "create temporary table copied (t text)"); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 1000)
	rand.Read(line)
	text := strings.Repeat(hex.EncodeToString(line)+"\n", 5000) // 10 MB
	tag, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(text), "copy copied from stdin")
	if err != nil || tag.RowsAffected() != 5000 {
		t.Fatalf("copied %v in, error %v", tag, err)
	}
	var out bytes.Buffer
	if _, err := conn.PgConn().CopyTo(t.Context(), &out, "copy copied to stdout"); err != nil {
		t.Fatal(err)
	}
	if out.String() != text {
		t.Errorf("copied out %d bytes that differ from the %d that were copied in", out.Len(), len(text))
	}
	await(t, "the counters", func() bool {
		stats := p.Stats()
		return stats.FromClients > int64(len(text)) && stats.ToClients > int64(len(text))
	})
}

func TestSession_ForwardsNotifications(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	listener, notifier := p.connect(t, ""), p.connect(t, "")
	if _, err := listener.Exec(t.Context(), "listen orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := notifier.Exec(t.Context(), "select pg_notify('orders', repeat('x', 7000))"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := listener.WaitForNotification(ctx)
	if err != nil || len(n.Payload) != 7000 {
		t.Errorf("notification %v, error %v", n, err)
	}
}

func TestSession_ForwardsPipelines(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	conn := p.connect(t, "")
	batch := &pgx.Batch{}
	sum := 0
	for i := range 5000 {
		batch.Queue("select $1::int", i).QueryRow(func(row pgx.Row) error {
			var n int
			err := row.Scan(&n)
			sum += n
			return err
		})
	}
	if err := conn.SendBatch(t.Context(), batch).Close(); err != nil || sum != 5000*4999/2 {
		t.Errorf("sum %d, error %v", sum, err)
	}
}

func TestSession_ForwardsLargeObjects(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	tx, err := p.connect(t, "").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	objects := tx.LargeObjects()
	id, err := objects.Create(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	object, err := objects.Open(t.Context(), id, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 3<<20)
	rand.Read(content)
	if _, err := object.Write(content); err != nil {
		t.Fatal(err)
	}
	if _, err := object.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(object)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d of %d bytes, error %v", len(got), len(content), err)
	}
}

func TestSession_ReplicatesLogically(t *testing.T) {
	s := server(t)
	app := newIdentity(t, s)
	admin(t, s, fmt.Sprintf("alter role %s replication", pgx.Identifier{app.Name}.Sanitize()))
	p := start(t, &engine.Server{Upstream: to(t, s, app)})
	conn := p.connect(t, "replication=database")
	results, err := conn.PgConn().Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll()
	if err != nil || len(results) != 1 || len(results[0].Rows) != 1 {
		t.Errorf("%v, error %v", results, err)
	}
}

func TestSession_ReplicatesPhysically(t *testing.T) {
	s := server(t)
	app := newIdentity(t, s)
	admin(t, s, fmt.Sprintf("alter role %s replication", pgx.Identifier{app.Name}.Sanitize()))
	for _, test := range []struct{ attrs, replication, failure string }{
		{"any", "true", ""},
		{"primary", "T", ""},
		{"read-write", "yes", ""},
		{"prefer-standby", "on", ""},
		{"standby", "1", "not in hot standby mode"},
		{"read-only", "true", "connection is not read only"},
	} {
		p := start(t, &engine.Server{Upstream: upstream(t, s.DSN()+"&target_session_attrs="+test.attrs, withApp(app)...)})
		client := dialWire(t, "tcp", p.addr.String())
		client.startup("3.0", "user", "client", "replication", test.replication)
		messages := client.untilReady()
		last := messages[len(messages)-1]
		switch accepted := last[0] == 'Z'; {
		case accepted != (test.failure == "") || !strings.Contains(last, test.failure):
			t.Errorf("%+v: %q", test, last)
		case accepted:
			client.send('Q', "IDENTIFY_SYSTEM\x00")
			if kinds := kindsOf(client.untilReady()); kinds != "TDCZ" {
				t.Errorf("%+v: IDENTIFY_SYSTEM is answered %s", test, kinds)
			}
		}
	}
}

func TestSession_SupportsBaseBackup(t *testing.T) {
	s := server(t)
	app := newIdentity(t, s)
	admin(t, s, fmt.Sprintf("alter role %s replication", pgx.Identifier{app.Name}.Sanitize()))
	p := start(t, &engine.Server{Upstream: to(t, s, app), Password: password})
	cmd := p.client(t, "pg_basebackup", "-d", p.dsn(""), "-D", "-", "-F", "tar", "-X", "fetch", "-c", "fast")
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	if err := cmd.Run(); err != nil || out.Len() < 20<<20 {
		t.Errorf("%d bytes, error %v: %s", out.Len(), err, diagnostics.String())
	}
}

func TestSession_ServesPsql(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s)), Password: password})
	cmd := p.psql(t, "", "-c", "select generate_series(1, 3)", "-c", `\conninfo`)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "1\n2\n3\n") {
		t.Errorf("%s, error %v", out, err)
	}
}

// TestSession_ForwardsFinalError terminates sessions on the server.
func TestSession_ForwardsFinalError(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	conn := p.connect(t, "")
	pid := query(t, conn, "select pg_backend_pid()::text")
	admin(t, s, "select pg_terminate_backend("+pid+")")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := conn.WaitForNotification(ctx)
	if response, ok := asPgError(err); !ok || response.Code != "57P01" {
		t.Errorf("error %v, want the server's 57P01", err)
	}
}

// TestSession_ForwardsQuerySentWithStartup sends the startup message and a query at once.
func TestSession_ForwardsQuerySentWithStartup(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	client := dialWire(t, p.addr.Network(), p.addr.String())
	client.startup("3.0", "user", "client", "database", "postgres")
	long := strings.Repeat("x", 200_000)
	client.send('Q', "select '"+long+"'\x00")
	client.send('X', "")
	client.untilReady()
	if answer := client.untilReady(); kindsOf(answer) != "TDCZ" || !strings.Contains(answer[1], long) {
		t.Errorf("answered %s", kindsOf(answer))
	}
	if rest := client.next(); rest != "" {
		t.Errorf("then %q", rest)
	}
}

// TestSession_AnswersClientThatClosesItsSide sends a query and closes the sending side of
// the connection.
func TestSession_AnswersClientThatClosesItsSide(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	client := dialWire(t, p.addr.Network(), p.addr.String())
	client.startup("3.0", "user", "client", "database", "postgres")
	client.untilReady()
	client.send('Q', "select repeat('x', 1000000) || 'the end'\x00")
	if err := client.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client.Conn); err != nil || !strings.Contains(string(got), "the end") {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
}

// TestSession_StartsAfterQueriesOfPgx makes pgx send its own queries before the session
// begins.
func TestSession_StartsAfterQueriesOfPgx(t *testing.T) {
	s := server(t)
	for _, settings := range []string{"target_session_attrs=read-write", "target_session_attrs=primary", "sslnegotiation=direct"} {
		p := start(t, &engine.Server{Upstream: upstream(t, s.DSN()+"&"+settings, withApp(newIdentity(t, s))...)})
		client := dialWire(t, p.addr.Network(), p.addr.String())
		client.startup("3.0", "user", "client", "database", "postgres")
		if kinds := kindsOf(client.untilReady()); !matchKinds(kinds, "RS+KZ") {
			t.Errorf("%s: the session begins with %s", settings, kinds)
		}
		client.send('Q', "select 1\x00")
		if kinds := kindsOf(client.untilReady()); kinds != "TDCZ" {
			t.Errorf("%s: the first query is answered %s", settings, kinds)
		}
		conn := p.connect(t, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := conn.PgConn().CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		await(t, "the cancel request", func() bool { return p.Stats().Cancels == 1 })
	}
}

// TestSession_HostileFunctionEndsOnlyItsOwnLogin has a client select, by its search_path, a
// function that is called in place of the one that pgx's query for target_session_attrs names.
func TestSession_HostileFunctionEndsOnlyItsOwnLogin(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: upstream(t, s.DSN()+"&target_session_attrs=primary", withApp(newIdentity(t, s))...)})
	other := p.connect(t, "")
	for name, body := range map[string]string{
		"none": "returns setof boolean language sql as 'select true where false'",
		"many": "returns setof text language sql as $$select repeat('x', 60000) from generate_series(1, 1000)$$",
	} {
		admin(t, s,
			"create schema "+name, "grant usage on schema "+name+" to public",
			"create function "+name+".pg_is_in_recovery() "+body)
		if err := p.rejection(t, "options='-c search_path="+name+",pg_catalog'"); !strings.Contains(err.Message, "during the login") {
			t.Errorf("%s: %v", name, err)
		}
		admin(t, s, "drop schema "+name+" cascade")
	}
	query(t, other, "select 'served'")
}
