package entrapg_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

// A leakWay is one of the ways to log in.
type leakWay struct {
	name  string
	hooks bool // the configuration's hooks can be set
	login func(ctx context.Context, w *leakWatch, dsn string, opts ...entrapg.Option) error
}

// managedIdentity has its own scope, because azidentity caches a managed identity's tokens for the
// whole process.
const managedIdentity = " entra_credential=managedidentity entra_scope=https://leaks.example/.default"

var leakWays = []leakWay{
	{"Connector", true, func(ctx context.Context, w *leakWatch, dsn string, opts ...entrapg.Option) error {
		opts = append(opts, entrapg.WithStdlib(
			stdlib.OptionBeforeConnect(func(_ context.Context, config *pgx.ConnConfig) error {
				w.look("BeforeConnect", config)
				return nil
			}),
			stdlib.OptionAfterConnect(func(_ context.Context, conn *pgx.Conn) error {
				w.open("last hook", conn)
				return w.hook("last hook")
			}),
		))
		c := entrapg.NewConnector(dsn, opts...)
		defer c.Close()
		return w.connect(ctx, c)
	}},
	{"driver", false, func(ctx context.Context, w *leakWatch, dsn string, _ ...entrapg.Option) error {
		db, err := sql.Open("entrapg", "")
		if err != nil {
			return err
		}
		defer db.Close()
		c, err := db.Driver().(driver.DriverContext).OpenConnector(dsn + managedIdentity)
		if err != nil {
			return err
		}
		defer c.(io.Closer).Close()
		return w.connect(ctx, c)
	}},
	{"pgxpool", true, func(ctx context.Context, w *leakWatch, dsn string, opts ...entrapg.Option) error {
		config, err := entrapg.PoolConfig(dsn, opts...)
		if err != nil {
			return err
		}
		before := config.BeforeConnect
		config.BeforeConnect = func(ctx context.Context, config *pgx.ConnConfig) error {
			err := before(ctx, config)
			w.look("BeforeConnect", config)
			return err
		}
		config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
			w.open("last hook", conn)
			return w.hook("last hook")
		}
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return err
		}
		conn, err := pool.Acquire(ctx)
		if err != nil {
			w.keep("error", err)
		} else {
			w.open("open connection", conn.Conn())
			conn.Release()
		}
		pool.Close()
		select { // a login continues without its caller until the pool closes
		case <-w.ended:
		case <-time.After(time.Minute):
			w.t.Error("the login has not ended")
		}
		return err
	}},
}

// serveLeakTokens starts an endpoint that returns the first of the tokens for managed identities of
// this process.
func serveLeakTokens(t *testing.T) {
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{
			"access_token": leakTokens[0], "expires_on": fmt.Sprint(time.Now().Add(time.Hour).Unix()),
			"resource": r.FormValue("resource"), "token_type": "Bearer",
		})
	}))
	t.Cleanup(endpoint.Close)
	t.Setenv("IDENTITY_ENDPOINT", endpoint.URL)
	t.Setenv("IDENTITY_HEADER", "header")
}

// moreMethods allows authentication methods that do not send a token.
const moreMethods = " require_auth=password,scram-sha-256,md5,none"

// A leakCase is a script of the server and the outcome of the login: "in", "out", or "" for either.
type leakCase struct {
	name   string
	script func(*scriptedLogin)
	want   string
	more   string // with moreMethods
	fail   string // the hook that fails
	end    string // what ends a login that the server keeps waiting: "cancel" or "timeout"
	hosts  int
}

var leakCases = []leakCase{
	{name: "cleartext accepted", want: "in", more: "in", script: func(l *scriptedLogin) {
		l.send(aNotice)
		l.password()
		l.send(aNotice)
		l.accept()
	}},
	{name: "cleartext rejected", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.password()
		l.reject("28000")
	}},
	{name: "cut before the password request", want: "out", more: "out", script: func(*scriptedLogin) {}},
	{name: "cut at the password request", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.send(&pgproto3.AuthenticationCleartextPassword{})
	}},
	{name: "cut after the password", want: "out", more: "out", script: func(l *scriptedLogin) { l.password() }},
	{name: "canceled", want: "out", more: "out", end: "cancel", script: silentAfterPassword},
	{name: "timed out", want: "out", more: "out", end: "timeout", script: silentAfterPassword},
	{name: "AfterNetConnect failed", want: "out", more: "out", fail: "AfterNetConnect", script: acceptPassword},
	{name: "ValidateConnect failed", want: "out", more: "out", fail: "ValidateConnect", script: acceptPassword},
	{name: "AfterConnect failed", want: "out", more: "out", fail: "AfterConnect", script: acceptPassword},
	{name: "last hook failed", want: "out", more: "out", fail: "last hook", script: acceptPassword},
	{name: "MD5", want: "out", script: func(l *scriptedLogin) {
		l.send(aNotice, &pgproto3.AuthenticationMD5Password{Salt: md5Salt})
		l.receive()
		l.accept()
	}},
	{name: "MD5 rejected", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.send(aNotice, &pgproto3.AuthenticationMD5Password{Salt: md5Salt})
		l.receive()
		l.reject("28P01")
	}},
	{name: "SCRAM", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.scram()
		l.reject("28P01")
	}},
	{name: "SCRAM cut", want: "out", more: "out", script: func(l *scriptedLogin) { l.scram() }},
	{name: "GSS", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.send(aNotice, &pgproto3.AuthenticationGSS{})
		l.receive()
	}},
	{name: "trust", want: "out", more: "in", script: func(l *scriptedLogin) {
		l.send(aNotice)
		l.accept()
	}},
	{name: "OAUTHBEARER accepted", want: "in", more: "out", script: func(l *scriptedLogin) {
		l.send(aNotice)
		l.bearer()
		l.accept()
	}},
	{name: "OAUTHBEARER rejected by status", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.send(aNotice)
		l.bearer()
		l.send(&pgproto3.AuthenticationSASLContinue{Data: []byte(`{"status":"invalid_token"}`)})
	}},
	{name: "OAUTHBEARER rejected by an error", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.bearer()
		l.reject("28000")
	}},
	{name: "OAUTHBEARER cut", want: "out", more: "out", script: func(l *scriptedLogin) { l.bearer() }},
	{name: "OAUTHBEARER timed out", want: "out", more: "out", end: "timeout", script: func(l *scriptedLogin) {
		l.bearer()
		io.Copy(io.Discard, l)
	}},
	{name: "second host after a cut", want: "in", more: "in", hosts: 2, script: func(l *scriptedLogin) {
		if l.password(); l.number > 1 {
			l.accept()
		}
	}},
	{name: "second host after a rejection", want: "in", more: "in", hosts: 2, script: func(l *scriptedLogin) {
		if l.password(); l.number > 1 {
			l.accept()
		} else {
			l.reject("28000")
		}
	}},
	{name: "second host after OAUTHBEARER cut", want: "in", more: "in", hosts: 2, script: func(l *scriptedLogin) {
		if l.number > 1 {
			l.password()
			l.accept()
		} else {
			l.bearer()
		}
	}},
	{name: "second host after SCRAM", want: "in", more: "in", hosts: 2, script: func(l *scriptedLogin) {
		if l.number > 1 {
			l.password()
			l.accept()
		} else {
			l.scram()
		}
	}},
	{name: "two hosts cut", want: "out", more: "out", hosts: 2, script: func(l *scriptedLogin) { l.password() }},
}

func acceptPassword(l *scriptedLogin) { l.password(); l.accept() }

func silentAfterPassword(l *scriptedLogin) {
	l.password()
	io.Copy(io.Discard, l)
}

func TestLogin_TokenIsInNothingThatPgxHandsOut(t *testing.T) {
	serveLeakTokens(t)
	for _, way := range leakWays {
		for _, test := range leakCases {
			for _, methods := range []string{"", moreMethods} {
				if test.fail != "" && !way.hooks {
					continue
				}
				t.Run(way.name+"/"+test.name+methods, func(t *testing.T) { test.run(t, way, methods, 100*time.Millisecond) })
			}
		}
	}
}

// run logs in. limit is the connect timeout of the cases that time out.
func (test leakCase) run(t *testing.T, way leakWay, methods string, limit time.Duration) {
	s := newScriptedServer(t, test.script)
	w := newLeakWatch(t)
	w.fail = test.fail
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), loginOfTest{}, true), 25*time.Second)
	defer cancel()
	options := w.options(func(c *pgx.ConnConfig) {
		if test.end == "timeout" {
			c.ConnectTimeout = limit
		}
	})
	if test.end == "cancel" || test.end == "timeout" && !way.hooks {
		go func() { s.waitForToken(ctx); cancel() }()
	}
	err := way.login(ctx, w, s.dsn(max(1, test.hosts))+methods, options...)
	w.check()
	_, logins := s.counts()
	if test.end == "timeout" && logins == 0 && limit < 10*time.Second { // the machine was too slow
		test.run(t, way, methods, 10*limit)
		return
	}

	want := test.want
	if methods != "" {
		want = test.more
	}
	if got := map[bool]string{true: "in", false: "out"}[err == nil]; want != "" && got != want {
		t.Errorf("the login ended with error %v, want %q", err, want)
	}
	if test.end == "cancel" && !errors.Is(err, context.Canceled) {
		t.Errorf("the login ended with error %v, want the caller's", err)
	}
	if test.fail != "" && !errors.Is(err, errHook) {
		t.Errorf("the login ended with error %v, want the hook's", err)
	}
	if logins < max(1, test.hosts) && test.fail != "AfterNetConnect" && test.end != "timeout" {
		t.Errorf("%d logins, want %d", logins, max(1, test.hosts))
	}
	if n := w.seen["DialFunc"]; way.hooks && n < test.hosts {
		t.Errorf("%d of %d hosts were dialed", n, test.hosts)
	}
	for _, hook := range []string{"BeforeConnect", "TraceConnectStart", "TraceConnectEnd", "AfterNetConnect"} {
		if way.hooks && w.seen[hook] == 0 {
			t.Errorf("%s was not called", hook)
		}
	}
}

// scramProof returns the proof of a client that knows the password.
func scramProof(t *testing.T, password, message string) []byte {
	t.Helper()
	salted, err := pbkdf2.Key(sha256.New, password, scramSalt, 4096, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		io.WriteString(h, text)
		return h.Sum(nil)
	}
	key := mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	for i, b := range mac(stored[:], message) {
		key[i] ^= b
	}
	return key
}

func md5Hex(text string) string {
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestLogin_NoHashOfTokenIsSent(t *testing.T) {
	serveLeakTokens(t)
	for _, way := range leakWays {
		for _, methods := range []string{"", moreMethods} {
			t.Run(way.name+"/MD5"+methods, func(t *testing.T) {
				s := newScriptedServer(t, func(l *scriptedLogin) {
					l.send(&pgproto3.AuthenticationMD5Password{Salt: md5Salt})
					l.receive()
					l.reject("28P01")
				})
				if err := newLeakWatch(t).logIn(s, way, methods); err == nil {
					t.Error("no error")
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				received := s.received.String()
				for _, token := range leakTokens {
					inner := md5Hex(token + "app")
					salted := md5Hex(inner + string(md5Salt[:]))
					if strings.Contains(received, inner) || strings.Contains(received, salted) {
						t.Error("the server received an MD5 hash of the token")
					}
				}
				if leakedPieces().find(received) {
					t.Error("the server received the token")
				}
			})
			t.Run(way.name+"/SCRAM"+methods, func(t *testing.T) {
				var proof []byte
				var message string
				s := newScriptedServer(t, func(l *scriptedLogin) {
					p, m := l.scram()
					l.server.mu.Lock()
					proof, message = p, m
					l.server.mu.Unlock()
					l.reject("28P01")
				})
				if err := newLeakWatch(t).logIn(s, way, methods); err == nil {
					t.Error("no error")
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				for _, token := range leakTokens {
					if len(proof) > 0 && bytes.Equal(proof, scramProof(t, token, message)) {
						t.Error("the server received a proof that is computed from the token")
					}
				}
				if leakedPieces().find(s.received.String()) {
					t.Error("the server received the token")
				}
			})
		}
	}
}

// A repetition is a way in which a server can repeat the token.
type repetition struct {
	name    string
	send    func(l *scriptedLogin, text string) // text contains pieces of the token
	methods string
	silent  bool // pgx discards the text
	exact   bool // the token is replaced by [token]
}

var repetitions = []repetition{
	{name: "ErrorResponse", exact: true, send: func(l *scriptedLogin, text string) {
		l.password()
		l.send(everyField("28P01", text))
	}},
	{name: "ErrorResponse before it requests authentication", send: func(l *scriptedLogin, text string) {
		l.send(everyField("28P01", text))
	}},
	{name: "ErrorResponse after AuthenticationOk", send: func(l *scriptedLogin, text string) {
		l.password()
		l.send(&pgproto3.AuthenticationOk{}, everyField("3D000", text))
	}},
	{name: "ErrorResponse that does not belong to a login", send: func(l *scriptedLogin, text string) {
		l.password()
		l.send(&pgproto3.ErrorResponse{Severity: text, SeverityUnlocalized: text, Code: text, Message: text})
	}},
	{name: "ErrorResponse to a bearer token", send: func(l *scriptedLogin, text string) {
		l.bearer()
		l.send(everyField("28000", text))
	}},
	{name: "NoticeResponse before it requests authentication", send: func(l *scriptedLogin, text string) {
		l.send(noticeOf(text))
		l.password()
		l.accept()
	}},
	{name: "NoticeResponse after the password", send: func(l *scriptedLogin, text string) {
		l.password()
		l.send(noticeOf(text))
		l.accept()
	}},
	{name: "NoticeResponse after AuthenticationOk", send: func(l *scriptedLogin, text string) {
		l.password()
		l.accept(noticeOf(text))
	}},
	{name: "ParameterStatus", send: func(l *scriptedLogin, text string) {
		l.password()
		l.accept(&pgproto3.ParameterStatus{Name: "tease", Value: text})
	}},
	{name: "ParameterStatus before AuthenticationOk", send: func(l *scriptedLogin, text string) {
		l.password()
		l.send(&pgproto3.ParameterStatus{Name: "tease", Value: text})
		l.accept()
	}},
	{name: "ParameterStatus's name", silent: true, send: func(l *scriptedLogin, text string) {
		l.password()
		l.accept(&pgproto3.ParameterStatus{Name: text, Value: "on"})
	}},
	{name: "NegotiateProtocolVersion", silent: true, send: func(l *scriptedLogin, text string) {
		l.send(&pgproto3.NegotiateProtocolVersion{UnrecognizedOptions: []string{"_pq_." + text, text}})
		l.password()
		l.accept()
	}},
	{name: "BackendKeyData", silent: true, send: func(l *scriptedLogin, text string) {
		l.password()
		l.accept(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte(text[:min(len(text), 200)])})
	}},
	{name: "NotificationResponse", send: func(l *scriptedLogin, text string) {
		l.password()
		l.accept(&pgproto3.NotificationResponse{PID: 1, Channel: text, Payload: text})
	}},
	{name: "unknown message", silent: true, send: func(l *scriptedLogin, text string) {
		l.password()
		l.Write(append(binary.BigEndian.AppendUint32([]byte{'?'}, uint32(4+len(text))), text...))
	}},
	{name: "OAUTHBEARER status", send: func(l *scriptedLogin, text string) {
		l.bearer()
		l.send(statusOf(text, 0))
	}},
	{name: "OAUTHBEARER status, escaped", send: func(l *scriptedLogin, text string) {
		l.bearer()
		l.send(statusOf(text, 1))
	}},
	{name: "OAUTHBEARER status, escaped in part", send: func(l *scriptedLogin, text string) {
		l.bearer()
		l.send(statusOf(text, 5))
	}},
	{name: "mechanisms", methods: moreMethods, silent: true, send: func(l *scriptedLogin, text string) {
		l.send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{text}})
	}},
	{name: "SCRAM iterations", methods: moreMethods, silent: true, send: func(l *scriptedLogin, text string) {
		l.send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
		_, nonce, _ := strings.Cut(string(l.receive()), "r=")
		l.send(&pgproto3.AuthenticationSASLContinue{Data: []byte("r=" + nonce + "server,s=AAAA,i=" + text)})
	}},
}

// everyField returns an error with text in every field that does not affect the outcome.
func everyField(code, text string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code,
		Message: text, Detail: text, Hint: text, InternalQuery: text, Where: text, SchemaName: text, TableName: text,
		ColumnName: text, DataTypeName: text, ConstraintName: text, File: text, Routine: text,
		UnknownFields: map[byte]string{'?': text},
	}
}

func noticeOf(text string) *pgproto3.NoticeResponse {
	notice := pgproto3.NoticeResponse(*everyField("00000", text))
	return &notice
}

// statusOf returns OAUTHBEARER's rejection with text in its status. Every nth character is escaped.
func statusOf(text string, n int) *pgproto3.AuthenticationSASLContinue {
	var status strings.Builder
	for i, char := range text {
		if n > 0 && i%n == 0 {
			fmt.Fprintf(&status, `\u%04x`, char)
		} else {
			status.WriteRune(char)
		}
	}
	return &pgproto3.AuthenticationSASLContinue{Data: fmt.Appendf(nil, `{"status":"%s","scope":"s"}`, status.String())}
}

// repeatedPieces returns pieces of a token that a server can repeat.
func repeatedPieces(token string) map[string]string {
	chunks := func(n int) string {
		var all []string
		for chunk := range slices.Chunk([]byte(token[:len(token)/n*n]), n) {
			all = append(all, string(chunk))
		}
		return strings.Join(all, ", ")
	}
	return map[string]string{
		"whole": token, "cut off": token[:1000], "the end": token[700:], "32": token[101:133], "40": token[501:541],
		"pieces of 32": chunks(32), "pieces of 40": chunks(40),
	}
}

func TestLogin_ServerThatRepeatsTokenIsRedacted(t *testing.T) {
	t.Parallel()
	const before, after = "who is ", "?"
	token := leakTokens[0]
	for _, way := range slices.DeleteFunc(slices.Clone(leakWays), func(way leakWay) bool { return !way.hooks }) {
		for _, repeat := range repetitions {
			for piece, repeated := range repeatedPieces(token) {
				t.Run(way.name+"/"+repeat.name+"/"+piece, func(t *testing.T) {
					w := newLeakWatch(t)
					w.onlyTexts = true
					s := newScriptedServer(t, func(l *scriptedLogin) { repeat.send(l, before+repeated+after) })
					err := w.logIn(s, way, repeat.methods)
					w.check()
					if err != nil {
						w.addServerText(err.Error())
					}
					texts := strings.Join(w.serverTexts, "\n")
					_, rest, readable := strings.Cut(texts, before)
					switch one := !strings.Contains(piece, "of"); {
					case repeat.silent:
					case repeat.exact && one && !strings.Contains(texts, before+"[token]"+after):
						t.Errorf("got %.200q, want %q in it", texts, before+"[token]"+after)
					case !readable || !strings.Contains(rest, after):
						t.Errorf("got %.200q, in which %q is lost", texts, before)
					}
				})
			}
		}
	}
}

func TestLogin_Class28RejectionOfBearerTokenIsRetriedOnce(t *testing.T) {
	for name, test := range map[string]struct {
		code, message string
		rejected      int // of the logins after the first
		hint          string
	}{
		"once":                {"28000", expiredMessage, 1, ""},
		"always":              {"28000", expiredMessage, 9, "clock"},
		"always, in 28P01":    {"28P01", `password authentication failed for user "app"`, 9, "role"},
		"always, but unknown": {"28000", "bearer token rejected", 9, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScriptedServer(t, func(l *scriptedLogin) {
				if l.bearer(); l.number == 1 || l.number > 1+test.rejected {
					l.accept()
					return
				}
				l.send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: test.code, Message: test.message})
			})
			credential := entrapg.WithCredential(&numbered{life: time.Hour})
			c := entrapg.NewConnector(s.dsn(1), credential, entrapg.WithLogger(nil))
			defer c.Close()
			mustConnect(t, c) // from now on, the token comes from the cache
			err := connect(t, c)
			s.mu.Lock()
			bearers := fmt.Sprint(s.bearers)
			s.mu.Unlock()
			if want := "[token-1 token-1 token-2]"; bearers != want {
				t.Errorf("the server got %s, want %s", bearers, want)
			}
			stats := c.Stats()
			if want := int64(min(test.rejected, 2)); stats.LoginsRejected != want || stats.LoginRetries != 1 {
				t.Errorf("Stats: %+v, want %d rejected logins and a retry", stats, want)
			}
			if test.rejected == 1 {
				if err != nil {
					t.Errorf("the second token was accepted, and Connect returned %v", err)
				}
				return
			}
			var login *entrapg.LoginError
			switch {
			case !errors.As(err, &login):
				t.Errorf("got %v, want a LoginError", err)
			case strings.Contains(login.Hint, "ordinary password") || !strings.Contains(login.Hint, test.hint):
				t.Errorf("the hint is %q, want %q in it", login.Hint, test.hint)
			}
		})
	}
}

func TestLogin_BrokenLoginsDialNoSecondConnection(t *testing.T) {
	const connects = 50
	for name, script := range map[string]func(*scriptedLogin){
		"after the startup message": func(*scriptedLogin) {},
		"after the password request": func(l *scriptedLogin) {
			l.send(&pgproto3.AuthenticationCleartextPassword{})
		},
		"after the password": func(l *scriptedLogin) { l.password() },
		"after AuthenticationOk": func(l *scriptedLogin) {
			l.password()
			l.send(&pgproto3.AuthenticationOk{})
		},
		"after the key to cancel": func(l *scriptedLogin) {
			l.password()
			l.send(&pgproto3.AuthenticationOk{}, aKey)
		},
		"in the middle of a message": func(l *scriptedLogin) { l.Write(encode(aNotice)[:9]) },
	} {
		for _, way := range []string{"Connector", "pgxpool"} {
			t.Run(way+"/"+name, func(t *testing.T) {
				s := newScriptedServer(t, script)
				credential := entrapg.WithCredential(&numbered{life: time.Hour})
				c := entrapg.NewConnector(s.dsn(1), credential, entrapg.WithLogger(nil))
				defer c.Close()
				attempt := func() error { return connect(t, c) }
				if way == "pgxpool" {
					pool := newPool(t, poolConfig(t, s.dsn(1), credential, entrapg.WithLogger(nil)))
					attempt = func() error { return pool.Ping(t.Context()) }
				}
				attempt() // starts the goroutines that remain
				extra := func() (goroutines, dials int) {
					dials, _ = s.counts()
					return runtime.NumGoroutine(), dials - 1
				}
				before := settledGoroutines()
				for range connects {
					if err := attempt(); err == nil {
						t.Fatal("no error")
					}
				}
				goroutines, dials := extra()
				end := time.Now().Add(time.Minute)
				for goroutines > before && dials <= connects && time.Now().Before(end) {
					time.Sleep(time.Millisecond)
					goroutines, dials = extra()
				}
				if dials != connects {
					t.Errorf("%d dials for %d logins", dials, connects)
				}
				if goroutines > before {
					t.Errorf("%d goroutines, %d before", goroutines, before)
				}
			})
		}
	}
}

// settledGoroutines counts the goroutines once their number no longer changes.
func settledGoroutines() int {
	n, since := runtime.NumGoroutine(), time.Now()
	end := since.Add(time.Minute)
	for time.Since(since) < 20*time.Millisecond && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
		if now := runtime.NumGoroutine(); now != n {
			n, since = now, time.Now()
		}
	}
	return n
}

func TestLogin_OpenConnectionDialsToCancelQuery(t *testing.T) {
	s := server()
	p := app(t, s)
	admin, err := pgx.Connect(t.Context(), s.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	const running = "select count(*) from pg_stat_activity where usename = $1 and state = 'active' and query like '%pg_sleep%'"
	sleepers := func() (n int) {
		if err := admin.QueryRow(t.Context(), running, p.Name).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	until := func(want int) {
		t.Helper()
		end := time.Now().Add(time.Minute)
		for sleepers() != want {
			if time.Now().After(end) {
				t.Fatalf("want %d queries", want)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for _, way := range []string{"Connector", "pgxpool"} {
		t.Run(way, func(t *testing.T) {
			var dials atomic.Int64
			count := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
				dial := c.DialFunc
				c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
					dials.Add(1)
					return dial(ctx, network, addr)
				}
			})
			const sleep = "select pg_sleep(60)"
			db, _ := open(t, s.DSN(), entrapg.WithCredential(p), count)
			query := func(ctx context.Context) error { _, err := db.ExecContext(ctx, sleep); return err }
			if way == "pgxpool" {
				pool := newPool(t, poolConfig(t, s.DSN(), entrapg.WithCredential(p), count))
				query = func(ctx context.Context) error { _, err := pool.Exec(ctx, sleep); return err }
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- query(ctx) }()
			until(1)
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			until(0)
			if n := dials.Load(); n != 2 {
				t.Errorf("%d dials, want one to log in and one to cancel", n)
			}
		})
	}
}
