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
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

// A scriptedServer listens on a loopback address and answers each login with a script.
type scriptedServer struct {
	port   int
	script func(*scriptedLogin)

	mu       sync.Mutex // guards what follows
	dials    int
	logins   int
	received bytes.Buffer // all that clients sent
	bearers  []string     // tokens that came by OAUTHBEARER
}

// A scriptedLogin is one connection to a scriptedServer, of which the startup message has been read.
type scriptedLogin struct {
	net.Conn
	server *scriptedServer
	number int // 1 for the server's first login
}

func newScriptedServer(t *testing.T, script func(*scriptedLogin)) *scriptedServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scriptedServer{port: listener.Addr().(*net.TCPAddr).Port, script: script}
	ended := make(chan struct{})
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.dials++
			s.mu.Unlock()
			sessions.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				s.serve(conn, ended)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); close(ended); sessions.Wait() })
	return s
}

// serve holds a connection that is there to cancel something until the test has ended.
func (s *scriptedServer) serve(conn net.Conn, ended <-chan struct{}) {
	l := &scriptedLogin{Conn: conn, server: s}
	const protocolVersion3 = 3
	switch startup := l.body(0); {
	case len(startup) < 4:
	case binary.BigEndian.Uint16(startup) != protocolVersion3:
		<-ended
	default:
		s.mu.Lock()
		s.logins++
		l.number = s.logins
		s.mu.Unlock()
		s.script(l)
	}
}

// say sends messages in two parts each, as a network may cut them.
func (l *scriptedLogin) say(messages ...pgproto3.BackendMessage) {
	for _, message := range messages {
		b := encode(message)
		l.Write(b[:len(b)/2])
		l.Write(b[len(b)/2:])
	}
}

// hear returns the body of the client's next message, nil if there is none.
func (l *scriptedLogin) hear() []byte { return l.body(1) }

// body reads a message that begins with a head and its length.
func (l *scriptedLogin) body(head int) []byte {
	start := make([]byte, head+4)
	if _, err := io.ReadFull(l, start); err != nil {
		return nil
	}
	body := make([]byte, max(0, min(int(binary.BigEndian.Uint32(start[head:]))-4, 1<<17)))
	n, _ := io.ReadFull(l, body)
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.received.Write(body[:n])
	return body[:n]
}

// password asks for a cleartext password and returns it.
func (l *scriptedLogin) password() string {
	l.say(&pgproto3.AuthenticationCleartextPassword{})
	return strings.TrimSuffix(string(l.hear()), "\x00")
}

// bearer asks for a token by OAUTHBEARER and returns it.
func (l *scriptedLogin) bearer() string {
	l.say(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER"}})
	_, token, _ := strings.Cut(string(l.hear()), "auth=Bearer ")
	token, _, _ = strings.Cut(token, "\x01")
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.bearers = append(l.server.bearers, token)
	return token
}

// accept logs the client in and serves it until it leaves. The messages come before ReadyForQuery.
func (l *scriptedLogin) accept(messages ...pgproto3.BackendMessage) {
	l.say(&pgproto3.AuthenticationOk{})
	l.say(messages...)
	l.say(aNotice, &pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	io.Copy(io.Discard, l)
}

func (l *scriptedLogin) reject(code string) {
	l.say(&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: "The access token has expired. Acquire a new token and try again."})
}

var aNotice = &pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "a notice"}

func (s *scriptedServer) counts() (dials, logins int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials, s.logins
}

// dsn is that of n hosts, all of which are the server.
func (s *scriptedServer) dsn(n int) string {
	hosts, ports := "127.0.0.1", fmt.Sprint(s.port)
	return fmt.Sprintf("host=%s%s port=%s%s user=app sslmode=disable",
		hosts, strings.Repeat(","+hosts, n-1), ports, strings.Repeat(","+ports, n-1))
}

// leakTokens are what the credential of the tests below returns, one after the other.
var leakTokens = []string{webTokenOf(2000), webTokenOf(2013), webTokenOf(1987), webTokenOf(1024)}

var leakedPieces = sync.OnceValue(func() *tokenPieces { return newTokenPieces(leakTokens...) })

func leakCredential() azcore.TokenCredential {
	var mu sync.Mutex
	calls := 0
	return credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		return azcore.AccessToken{Token: leakTokens[(calls-1)%len(leakTokens)], ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
}

// A leakWatch looks for the tokens in all that pgx hands out during a login.
type leakWatch struct {
	t    *testing.T
	fail string // the hook that returns errHook

	mu    sync.Mutex // guards what follows
	seen  map[string]int
	found []string // places that show a token
	spare []string // places whose spare capacity has one
	kept  []any    // looked at again later
	ended chan struct{}
}

var errHook = errors.New("the hook failed")

func newLeakWatch(t *testing.T) *leakWatch {
	return &leakWatch{t: t, seen: map[string]int{}, ended: make(chan struct{}, 8)}
}

// look renders values in every form, and looks into them.
func (w *leakWatch) look(where string, values ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[where]++
	w.search(where, values...)
}

// keep looks at values that again will look at once more.
func (w *leakWatch) keep(where string, values ...any) {
	w.look(where, values...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, values...)
}

func (w *leakWatch) again(where string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.search(where, w.kept...)
}

func (w *leakWatch) search(where string, values ...any) {
	pieces := leakedPieces()
	note := func(list *[]string, place string) {
		if place = where + ": " + place; !slices.Contains(*list, place) {
			*list = append(*list, place)
		}
	}
	for _, v := range values {
		out := &rendered{}
		if err, ok := v.(error); ok {
			out.addError(err)
		} else {
			out.add(v)
			if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && !p.IsNil() {
				out.add(p.Elem().Interface())
			}
		}
		if text := out.text.String(); pieces.find(text) >= 0 {
			note(&w.found, fmt.Sprintf("%T as text", v))
		}
		dump := &deepDump{
			text: func(path, text string) {
				if pieces.find(text) >= 0 {
					note(&w.found, path)
				}
			},
			spare: func(path, text string) {
				if pieces.find(text) >= 0 {
					note(&w.spare, path)
				}
			},
		}
		dump.add(fmt.Sprintf("%T", v), v)
	}
}

// provide calls a configuration's OAuthTokenProvider, which must not give the token to everybody.
func (w *leakWatch) provide(where string, config *pgconn.Config) {
	if config.OAuthTokenProvider == nil {
		return
	}
	token, err := config.OAuthTokenProvider(context.Background())
	w.look(where+"'s OAuthTokenProvider", token, err)
}

func (w *leakWatch) hook(name string) error {
	if w.fail == name {
		return errHook
	}
	return nil
}

// loginOfTest marks the context of a login, which a request to cancel does not have.
type loginOfTest struct{}

// option puts the watch on every hook that a configuration has.
func (w *leakWatch) option(more ...func(*pgx.ConnConfig)) entrapg.Option {
	return entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.Tracer = leakTracer{w.traceStart, w.traceEnd}
		c.AfterNetConnect = func(_ context.Context, config *pgconn.Config, conn net.Conn) (net.Conn, error) {
			w.keep("AfterNetConnect", config)
			return conn, w.hook("AfterNetConnect")
		}
		c.ValidateConnect = func(_ context.Context, conn *pgconn.PgConn) error {
			w.look("ValidateConnect", conn)
			return w.hook("ValidateConnect")
		}
		c.AfterConnect = func(_ context.Context, conn *pgconn.PgConn) error {
			w.look("AfterConnect", conn)
			return w.hook("AfterConnect")
		}
		c.OnNotice = func(conn *pgconn.PgConn, notice *pgconn.Notice) { w.look("OnNotice", conn, notice) }
		c.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
			w.look("OnPgError", conn, err)
			return false
		}
		build := c.BuildContextWatcherHandler
		c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			w.look("BuildContextWatcherHandler", conn)
			return build(conn)
		}
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if ctx.Value(loginOfTest{}) != nil {
				w.look("DialFunc")
				w.again("what is in reach of DialFunc")
			}
			return dial(ctx, network, addr)
		}
		for _, adjust := range more {
			adjust(c)
		}
	})
}

func (w *leakWatch) traceStart(config *pgx.ConnConfig) {
	w.keep("TraceConnectStart", config)
	w.provide("TraceConnectStart", &config.Config)
}

func (w *leakWatch) traceEnd(data pgx.TraceConnectEndData) {
	w.look("TraceConnectEnd", data)
	if data.Err != nil {
		w.keep("TraceConnectEnd.Err", data.Err)
	}
	if data.Conn != nil && data.Err == nil {
		w.open("TraceConnectEnd.Conn", data.Conn)
	}
	w.ended <- struct{}{}
}

func (w *leakWatch) open(where string, conn *pgx.Conn) {
	w.look(where, conn, conn.Config(), conn.PgConn())
	w.provide(where, &conn.Config().Config)
}

// check fails the test if a token was found anywhere.
func (w *leakWatch) check() {
	w.t.Helper()
	w.again("at the end")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, place := range w.found {
		w.t.Errorf("the token shows: %s", place)
	}
	for _, place := range w.spare {
		w.t.Logf("spare capacity has the token: %s", place)
	}
}

// A leakTracer holds functions, so that the watch does not look into itself.
type leakTracer struct {
	start func(*pgx.ConnConfig)
	end   func(pgx.TraceConnectEndData)
}

func (leakTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (leakTracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (t leakTracer) TraceConnectStart(ctx context.Context, data pgx.TraceConnectStartData) context.Context {
	t.start(data.ConnConfig)
	return ctx
}

func (t leakTracer) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) { t.end(data) }

// A leakWay is one of the ways to log in.
type leakWay struct {
	name  string
	hooks bool // the configuration's hooks can be set
	login func(ctx context.Context, w *leakWatch, dsn string, opts ...entrapg.Option) error
}

var leakWays = []leakWay{
	{"Connector", true, func(ctx context.Context, w *leakWatch, dsn string, opts ...entrapg.Option) error {
		opts = append(opts, entrapg.WithStdlib(stdlib.OptionAfterConnect(func(_ context.Context, conn *pgx.Conn) error {
			w.open("last hook", conn)
			return w.hook("last hook")
		})))
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
		c, err := db.Driver().(driver.DriverContext).OpenConnector(dsn + " entra_credential=managedidentity entra_scope=https://leaks.example/.default")
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
		select { // a login goes on without its caller until the pool closes
		case <-w.ended:
		case <-time.After(20 * time.Second):
			w.t.Error("the login has not ended")
		}
		return err
	}},
}

func (w *leakWatch) connect(ctx context.Context, c driver.Connector) error {
	conn, err := c.Connect(ctx)
	if err != nil {
		w.keep("error", err)
		return err
	}
	w.look("open connection", conn)
	w.open("open connection", conn.(*stdlib.Conn).Conn())
	return conn.Close()
}

// serveLeakTokens has managed identities of this process get the first of the tokens.
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

// moreMethods allows a server to ask for what a token is not sent by.
const moreMethods = " require_auth=password,scram-sha-256,md5,none"

// A leakCase is what a server does, and what becomes of the login. The outcomes are "in", "out", and "" for either.
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
		l.say(aNotice)
		l.password()
		l.say(aNotice)
		l.accept()
	}},
	{name: "cleartext rejected", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.password()
		l.reject("28000")
	}},
	{name: "cut before the password request", want: "out", more: "out", script: func(*scriptedLogin) {}},
	{name: "cut at the password request", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.say(&pgproto3.AuthenticationCleartextPassword{})
	}},
	{name: "cut after the password", want: "out", more: "out", script: func(l *scriptedLogin) { l.password() }},
	{name: "canceled", want: "out", more: "out", end: "cancel", script: silentAfterPassword},
	{name: "timed out", want: "out", more: "out", end: "timeout", script: silentAfterPassword},
	{name: "AfterNetConnect failed", want: "out", more: "out", fail: "AfterNetConnect", script: acceptPassword},
	{name: "ValidateConnect failed", want: "out", more: "out", fail: "ValidateConnect", script: acceptPassword},
	{name: "AfterConnect failed", want: "out", more: "out", fail: "AfterConnect", script: acceptPassword},
	{name: "last hook failed", want: "out", more: "out", fail: "last hook", script: acceptPassword},
	{name: "MD5", want: "out", script: func(l *scriptedLogin) {
		l.say(aNotice, &pgproto3.AuthenticationMD5Password{Salt: md5Salt})
		l.hear()
		l.accept()
	}},
	{name: "MD5 rejected", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.say(aNotice, &pgproto3.AuthenticationMD5Password{Salt: md5Salt})
		l.hear()
		l.reject("28P01")
	}},
	{name: "SCRAM", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.scram()
		l.reject("28P01")
	}},
	{name: "SCRAM cut", want: "out", more: "out", script: func(l *scriptedLogin) { l.scram() }},
	{name: "GSS", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.say(aNotice, &pgproto3.AuthenticationGSS{})
		l.hear()
	}},
	{name: "trust", want: "out", more: "in", script: func(l *scriptedLogin) {
		l.say(aNotice)
		l.accept()
	}},
	{name: "OAUTHBEARER accepted", want: "in", more: "out", script: func(l *scriptedLogin) {
		l.say(aNotice)
		l.bearer()
		l.accept()
	}},
	{name: "OAUTHBEARER rejected by status", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.say(aNotice)
		l.bearer()
		l.say(&pgproto3.AuthenticationSASLContinue{Data: []byte(`{"status":"invalid_token"}`)})
	}},
	{name: "OAUTHBEARER rejected by an error", want: "out", more: "out", script: func(l *scriptedLogin) {
		l.bearer()
		l.reject("28000")
	}},
	{name: "OAUTHBEARER cut", want: "out", more: "out", script: func(l *scriptedLogin) { l.bearer() }},
	{name: "OAUTHBEARER canceled", want: "out", more: "out", end: "timeout", script: func(l *scriptedLogin) {
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

// waitForToken waits until a client has sent a token.
func (s *scriptedServer) waitForToken(t *testing.T) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := s.received.Len()
		s.mu.Unlock()
		if n > 1024 {
			return
		}
	}
	t.Error("no token has come")
}

func TestLogin_TokenIsInNothingThatPgxHandsOut(t *testing.T) {
	serveLeakTokens(t)
	for _, way := range leakWays {
		for _, test := range leakCases {
			for _, methods := range []string{"", moreMethods} {
				if test.fail != "" && !way.hooks {
					continue
				}
				t.Run(way.name+"/"+test.name+methods, func(t *testing.T) { test.run(t, way, methods) })
			}
		}
	}
}

func (test leakCase) run(t *testing.T, way leakWay, methods string) {
	s := newScriptedServer(t, test.script)
	w := newLeakWatch(t)
	w.fail = test.fail
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), loginOfTest{}, true), 20*time.Second)
	defer cancel()
	const short = 100 * time.Millisecond
	option := w.option(func(c *pgx.ConnConfig) {
		if test.end == "timeout" {
			c.ConnectTimeout = short
		}
	})
	switch {
	case test.end == "cancel":
		go func() { s.waitForToken(t); cancel() }()
	case test.end == "timeout" && !way.hooks:
		ctx, cancel = context.WithTimeout(ctx, short)
		defer cancel()
	}
	err := way.login(ctx, w, s.dsn(max(1, test.hosts))+methods, option, entrapg.WithCredential(leakCredential()), entrapg.WithLogger(nil))
	w.check()

	want := test.want
	if methods != "" {
		want = test.more
	}
	if got := map[bool]string{true: "in", false: "out"}[err == nil]; want != "" && got != want {
		t.Errorf("the login ended with error %v, want %q", err, want)
	}
	if test.fail != "" && !errors.Is(err, errHook) {
		t.Errorf("the login ended with error %v, want the hook's", err)
	}
	if _, logins := s.counts(); logins < max(1, test.hosts) && test.fail != "AfterNetConnect" {
		t.Errorf("%d logins, want %d", logins, max(1, test.hosts))
	}
	if way.hooks && (w.seen["TraceConnectStart"] == 0 || w.seen["TraceConnectEnd"] == 0 || w.seen["AfterNetConnect"] == 0) {
		t.Errorf("the hooks were not called: %v", w.seen)
	}
}

// scram asks for SCRAM and plays the server's part up to the client's proof. It returns the proof and what it is
// computed from.
func (l *scriptedLogin) scram() (proof []byte, message string) {
	l.say(aNotice, &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
	_, first, _ := strings.Cut(string(l.hear()), "n=")
	first = "n=" + first
	_, nonce, found := strings.Cut(first, "r=")
	if !found {
		return nil, ""
	}
	challenge := "r=" + nonce + "server,s=" + base64.StdEncoding.EncodeToString(scramSalt) + ",i=4096"
	l.say(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)})
	final, encoded, _ := strings.Cut(string(l.hear()), ",p=")
	proof, _ = base64.StdEncoding.DecodeString(encoded)
	return proof, first + "," + challenge + "," + final
}

var (
	md5Salt   = [4]byte{1, 2, 3, 4}
	scramSalt = []byte("0123456789abcdef")
)

// scramProof is what a client sends that has the password.
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

func TestLogin_NoHashOfTheTokenIsSent(t *testing.T) {
	serveLeakTokens(t)
	for _, way := range leakWays {
		for _, methods := range []string{"", moreMethods} {
			t.Run(way.name+"/MD5"+methods, func(t *testing.T) {
				s := newScriptedServer(t, func(l *scriptedLogin) {
					l.say(&pgproto3.AuthenticationMD5Password{Salt: md5Salt})
					l.hear()
					l.reject("28P01")
				})
				if err := s.logIn(t, way, methods); err == nil {
					t.Error("no error")
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				received := s.received.String()
				for _, token := range leakTokens {
					inner := md5Hex(token + "app")
					if strings.Contains(received, inner) || strings.Contains(received, md5Hex(inner+string(md5Salt[:]))) {
						t.Error("the server received an MD5 hash of the token")
					}
				}
				if leakedPieces().find(received) >= 0 {
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
				if err := s.logIn(t, way, methods); err == nil {
					t.Error("no error")
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				for _, token := range leakTokens {
					if len(proof) > 0 && bytes.Equal(proof, scramProof(t, token, message)) {
						t.Error("the server received a proof that is computed from the token, which it can test guesses with")
					}
				}
				if leakedPieces().find(s.received.String()) >= 0 {
					t.Error("the server received the token")
				}
			})
		}
	}
}

// logIn makes one login.
func (s *scriptedServer) logIn(t *testing.T, way leakWay, methods string) error {
	w := newLeakWatch(t)
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), loginOfTest{}, true), 20*time.Second)
	defer cancel()
	return way.login(ctx, w, s.dsn(1)+methods, w.option(), entrapg.WithCredential(leakCredential()), entrapg.WithLogger(nil))
}
