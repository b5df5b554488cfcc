package entrapg_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

// leakTokens are the tokens that leakCredential returns, in turn.
var leakTokens = []string{webTokenOf(2000), webTokenOf(2013), webTokenOf(1987), webTokenOf(1024)}

var leakedPieces = sync.OnceValue(func() *tokenPieces { return newTokenPieces(leakTokens...) })

func leakCredential() azcore.TokenCredential {
	var mu sync.Mutex
	calls := 0
	return credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		token := leakTokens[(calls-1)%len(leakTokens)]
		return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
}

// A leakWatch searches everything that pgx passes to hooks and tracers during a login for the tokens.
type leakWatch struct {
	t         *testing.T
	fail      string // the hook that returns errHook
	onlyTexts bool   // during the login, search only texts of the server, not the connection
	logs      rendered

	mu          sync.Mutex // guards the following
	seen        map[string]int
	found       []string // places that contain a token
	spare       []string // places whose spare capacity contains one
	kept        []any    // to be searched again
	serverTexts []string // texts of the server that reached a hook
	ended       chan struct{}
}

var errHook = errors.New("the hook failed")

func newLeakWatch(t *testing.T) *leakWatch {
	return &leakWatch{t: t, seen: map[string]int{}, ended: make(chan struct{}, 8)}
}

// look searches values, rendered in every form and by reflection.
func (w *leakWatch) look(where string, values ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[where]++
	w.search(where, values...)
}

// keep searches values now and in every later call of again.
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
		if text := out.String(); pieces.find(text) {
			note(&w.found, fmt.Sprintf("%T as text", v))
		}
		dump := &deepDump{
			text: func(path, text string) {
				if pieces.find(text) {
					note(&w.found, path)
				}
			},
			spare: func(path, text string) {
				if pieces.find(text) {
					note(&w.spare, path)
				}
			},
		}
		dump.add(fmt.Sprintf("%T", v), v)
	}
}

// during searches a connection during the login, and texts of the server.
func (w *leakWatch) during(where string, conn *pgconn.PgConn, texts ...any) {
	if !w.onlyTexts {
		texts = append(texts, conn)
	}
	w.look(where, texts...)
}

// addServerText records a text of the server that a hook got.
func (w *leakWatch) addServerText(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serverTexts = append(w.serverTexts, text)
}

// provide calls a configuration's OAuthTokenProvider, which must not return the token outside a login.
func (w *leakWatch) provide(where string, config *pgconn.Config) {
	if config.OAuthTokenProvider == nil {
		return
	}
	token, err := config.OAuthTokenProvider(context.Background())
	w.look(where+"'s OAuthTokenProvider", token, err)
}

// options returns options with which a connector logs in with the tokens and is watched.
func (w *leakWatch) options(more ...func(*pgx.ConnConfig)) []entrapg.Option {
	return []entrapg.Option{
		w.option(more...), entrapg.WithCredential(leakCredential()),
		entrapg.WithLogger(slog.New(slog.NewTextHandler(&w.logs, nil))),
	}
}

func (w *leakWatch) hook(name string) error {
	if w.fail == name {
		return errHook
	}
	return nil
}

// loginOfTest marks the context of a login, which a request to cancel does not have.
type loginOfTest struct{}

// option adds the watch to every hook of a configuration.
func (w *leakWatch) option(more ...func(*pgx.ConnConfig)) entrapg.Option {
	return entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.Tracer = leakTracer{w.traceStart, w.traceEnd}
		c.AfterNetConnect = func(_ context.Context, config *pgconn.Config, conn net.Conn) (net.Conn, error) {
			w.keep("AfterNetConnect", config)
			return conn, w.hook("AfterNetConnect")
		}
		c.ValidateConnect = func(_ context.Context, conn *pgconn.PgConn) error {
			w.during("ValidateConnect", conn)
			return w.hook("ValidateConnect")
		}
		c.AfterConnect = func(_ context.Context, conn *pgconn.PgConn) error {
			w.during("AfterConnect", conn)
			return w.hook("AfterConnect")
		}
		c.OnNotice = func(conn *pgconn.PgConn, notice *pgconn.Notice) {
			w.during("OnNotice", conn, notice)
			w.addServerText(notice.Message)
		}
		c.OnNotification = func(conn *pgconn.PgConn, notification *pgconn.Notification) {
			w.during("OnNotification", conn, notification)
			w.addServerText(notification.Payload)
		}
		c.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
			w.during("OnPgError", conn, err)
			w.addServerText(err.Message)
			return false
		}
		build := c.BuildContextWatcherHandler
		c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			w.during("BuildContextWatcherHandler", conn)
			return build(conn)
		}
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if ctx.Value(loginOfTest{}) != nil {
				w.look("DialFunc")
				w.again("values that DialFunc can reach")
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
	w.addServerText(conn.PgConn().ParameterStatus("tease"))
	w.provide(where, &conn.Config().Config)
}

// check fails the test if a token was found anywhere.
func (w *leakWatch) check() {
	w.t.Helper()
	w.again("at the end")
	w.look("log", w.logs.String())
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, place := range w.found {
		w.t.Errorf("token found in %s", place)
	}
	for _, place := range w.spare {
		w.t.Logf("token found in spare capacity of %s", place)
	}
}

// connect opens a connection, searches it and closes it.
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

// A leakTracer holds functions, so that the watch does not search itself.
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

// logIn logs in to a server once.
func (w *leakWatch) logIn(s *scriptedServer, way leakWay, methods string) error {
	ctx, cancel := context.WithTimeout(context.WithValue(w.t.Context(), loginOfTest{}, true), 25*time.Second)
	defer cancel()
	return way.login(ctx, w, s.dsn(1)+methods, w.options()...)
}
