package entrapg

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/pgwire"
	"github.com/entrapg/entrapg/internal/token"
)

// A login is one attempt to log in, possibly to several hosts. Its hooks run in
// pgx: they check each connection, and give it an Exchange that sends the token.
// pgx logs in with an empty password and makes an attempt on one goroutine.
type login struct {
	policy   tlsPolicy
	token    *token.Token
	tokens   *token.Source // where verdicts are recorded
	key      any           // of the server and the user
	users    *userCache    // that derived the user; nil if it was set
	password func() string // instead of token, with entra_credential=none
	pooled   bool          // errors reach the program without passing this package

	// The hooks that were there before.
	nextDial            pgconn.DialFunc
	nextAfterNetConnect func(context.Context, *pgconn.Config, net.Conn) (net.Conn, error)
	nextBuildFrontend   pgconn.BuildFrontendFunc

	attempt  *pgconn.Config // of the current connection
	conn     net.Conn
	rejected bool // by a server
	spent    bool // a server that rejected the login had been sent the token

	// pgx reads these on other goroutines: when it dials cancel requests, and when
	// the program connects with an open connection's configuration.
	accepted atomic.Bool // by a server; from then on, the hooks do nothing
	broken   atomic.Bool // a connection broke before a server accepted the login
}

// install makes config log in as user with the token. config may be a shallow
// copy: its fields are replaced, and what they point to is not changed. Hooks
// that it has remain in use.
func (l *login) install(config *pgx.ConnConfig, user string) {
	config.User = user
	l.nextDial, config.DialFunc = config.DialFunc, l.dial
	l.nextAfterNetConnect, config.AfterNetConnect = config.AfterNetConnect, l.afterNetConnect
	l.nextBuildFrontend, config.BuildFrontend = config.BuildFrontend, l.buildFrontend
	if l.token != nil && config.OAuthTokenProvider == nil {
		config.OAuthTokenProvider = l.bearer
	}
}

// dial refuses to dial a cancel request for a login that broke. pgx makes one,
// and keeps its connection for 15 seconds, although there is no query to cancel
// before the server is ready for queries.
func (l *login) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.broken.Load() && !l.accepted.Load() && isCancelRequest() {
		return nil, errors.New("the connection broke during the login, and there is no query to cancel")
	}
	return l.nextDial(ctx, network, address)
}

// isCancelRequest reports whether pgx is dialing for a cancel request. Nothing
// but the stack tells: pgx dials the next host with the same function, and
// possibly the same address, on another goroutine.
func isCancelRequest() bool {
	var callers [16]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "pgconn.(*PgConn).CancelRequest") {
			return true
		}
		if !more {
			return false
		}
	}
}

func (l *login) afterNetConnect(ctx context.Context, attempt *pgconn.Config, conn net.Conn) (net.Conn, error) {
	if !l.accepted.Load() { // otherwise somebody connects with an open connection's configuration
		if err := l.policy.check(ctx, attempt, conn); err != nil {
			return conn, err // pgx closes it
		}
	}
	if l.nextAfterNetConnect != nil {
		wrapped, err := l.nextAfterNetConnect(ctx, attempt, conn)
		if err != nil {
			return conn, err
		}
		conn = wrapped
	}
	if !l.accepted.Load() {
		l.attempt, l.conn = attempt, conn
		if l.pooled {
			l.circumstances().remember(attempt)
		}
		if l.password != nil {
			attempt.Password = l.password()
		}
	}
	return conn, nil
}

func (l *login) buildFrontend(r io.Reader, w io.Writer) *pgproto3.Frontend {
	if l.accepted.Load() {
		return l.nextBuildFrontend(r, w)
	}
	x := &pgwire.Exchange{Reader: r, Writer: w, Observer: l}
	if l.token != nil {
		x.Token = l.token.Secret
	}
	return l.nextBuildFrontend(x, x)
}

// ExchangeEnded records the outcome of one connection's exchange.
func (l *login) ExchangeEnded(x *pgwire.Exchange) {
	if l.password != nil {
		l.attempt.Password = ""
	}
	switch x.Outcome {
	case pgwire.Accepted:
		l.accepted.Store(true)
		if l.token != nil {
			l.tokens.Accept(l.key, l.token)
		}
	case pgwire.Rejected:
		l.rejected = true
		if l.token != nil && x.Sent {
			l.spent = true
			l.tokens.Reject(l.key, l.token)
		}
	case pgwire.Broken:
		l.broken.Store(true)
	}
}

// bearer makes pgx answer a request for OAUTHBEARER, with an empty token that
// the Exchange replaces.
func (l *login) bearer(context.Context) (string, error) {
	if l.accepted.Load() || l.attempt == nil {
		return "", errors.New("entrapg: tokens are for logging in only")
	}
	return "", nil
}

// circumstances returns what the login knows for an error. It must be called
// before abort.
func (l *login) circumstances() circumstances {
	if l.token == nil {
		return circumstances{password: true}
	}
	var known circumstances
	if c, err := claims.Parse(l.token.Secret()); err == nil {
		known.guest = c.Guest()
	}
	if l.users != nil {
		known.lookup = l.users.failure(l.token)
	}
	return known
}

// abort cleans up after a failed attempt. pgx leaves the connection open if a
// hook of its database/sql driver fails.
func (l *login) abort() {
	if l.conn != nil {
		l.conn.Close()
	}
	if l.password != nil && l.attempt != nil {
		l.attempt.Password = ""
	}
	l.token, l.password = nil, nil
}
