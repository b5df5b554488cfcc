package entrapg

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
	"github.com/entrapg/entrapg/internal/pgwire"
	"github.com/entrapg/entrapg/internal/token"
)

// A login is one attempt to log in, possibly to several hosts. Its hooks run in
// pgx: they check each connection, and give it an Exchange that sends the token.
// pgx logs in with an empty password and makes an attempt on one goroutine.
type login struct {
	policy   tlsPolicy
	token    *token.Token
	tokens   *token.Source // where outcomes are recorded
	key      any           // of the server and the user
	user     string        // that the connector logs in as, unless a hook sets another one
	users    *userCache    // that derived the user; nil if it was set
	settings connstring.Settings
	password func() string // instead of token, with entra_credential=none

	verifications verifications // InsecureSkipVerify configurations that the policy has created

	// The hooks of the original configuration.
	nextDial            pgconn.DialFunc
	nextAfterNetConnect afterNetConnect
	nextBuildFrontend   pgconn.BuildFrontendFunc
	nextValidate        pgconn.ValidateConnectFunc // pgx's own, or nil

	// The current connection.
	config  *pgconn.Config
	conn    net.Conn
	checked bool // by afterNetConnect, which must not be skipped; reset by buildFrontend

	// All connections of the attempt.
	rejected      bool // a server rejected the login
	tokenRejected bool // a server that was sent the token rejected the login
	tokenCut      bool // a connection broke after the login sent a token that may be too long for PgBouncer

	// pgx reads these on other goroutines: when it dials cancel requests, and when
	// the program reuses an open connection's configuration.
	phase    atomic.Int32 // a loginPhase
	checking atomic.Bool  // nextValidate follows or runs, on the current connection
}

// A loginPhase is how far a login is. A login with several hosts returns from accepted
// to exchanging if pgx does not use the host that has accepted it.
type loginPhase = int32

const (
	connecting loginPhase = iota // there is no connection yet
	exchanging                   // the current connection has an Exchange
	accepted                     // the current server has accepted the login
	succeeded                    // from here on, the hooks do nothing
	failed
)

// install makes config log in as user with the token. config may be a shallow
// copy: its fields are replaced, and what they point to is not changed. Hooks
// that it has remain in use.
func (l *login) install(config *pgx.ConnConfig, user string) {
	config.User, l.user = user, user
	l.nextDial, config.DialFunc = config.DialFunc, l.dial
	l.nextAfterNetConnect, config.AfterNetConnect = config.AfterNetConnect, l.afterNetConnect
	l.nextBuildFrontend, config.BuildFrontend = config.BuildFrontend, l.buildFrontend
	if checksSession(config.ValidateConnect) {
		l.nextValidate, config.ValidateConnect = config.ValidateConnect, l.validate
	}
	if l.token != nil && config.OAuthTokenProvider == nil {
		config.OAuthTokenProvider = l.bearer
	}
}

// dial rejects cancel requests before the server is ready for queries. If a login fails
// midway, pgx sends a cancel request and keeps its connection open for 15 seconds,
// although there is nothing to cancel.
func (l *login) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if details, ok := ctx.Value(loginDetailsKey{}).(*loginDetails); ok {
		*details = l.details()
		return nil, context.Canceled
	}
	if phase := l.phase.Load(); (phase == exchanging || phase == failed) && isCancelRequest() {
		return nil, errors.New("login failed; no query to cancel")
	}
	return l.nextDial(ctx, network, address)
}

func (l *login) afterNetConnect(ctx context.Context, config *pgconn.Config, conn net.Conn) (net.Conn, error) {
	ended := l.ended() // the program reuses the configuration of a login that has ended
	if ended && l.token != nil && config.Password == "" {
		return conn, &ConfigError{Setting: "ConnConfig", Problem: "the configuration of a connection has no token; " +
			"connect through the connector or the pool"}
	}
	if !ended {
		l.clearPassword() // of the previous connection
		if err := l.policy.check(ctx, config, conn, l.verifications); err != nil {
			return conn, err // pgx closes it
		}
		if err := claims.UsableName(config.User); err != nil {
			return conn, &UsernameError{
				Problem: "the user that a BeforeConnect hook sets cannot be the name of a role",
				Err:     err,
			}
		}
	}
	if l.nextAfterNetConnect != nil {
		wrapped, err := l.nextAfterNetConnect(withLogin(ctx), config, conn)
		if err != nil {
			return conn, err
		}
		conn = wrapped
	}
	if !ended {
		l.config, l.conn, l.checked = config, conn, true
		if l.password != nil {
			config.Password = l.password()
		}
	}
	return conn, nil
}

func (l *login) buildFrontend(r io.Reader, w io.Writer) *pgproto3.Frontend {
	if l.ended() {
		return l.nextBuildFrontend(r, w)
	}
	x := &pgwire.Exchange{Reader: r, Writer: w, Observer: l}
	if !l.checked {
		x.Err = &ConfigError{
			Setting: "AfterNetConnect",
			Problem: "a BeforeConnect hook must not replace it; set it by WithConnConfig",
		}
	}
	if l.token != nil {
		x.Token = l.token.Secret
	}
	l.checked = false
	l.phase.Store(exchanging)
	// A hook can replace validate.
	if l.nextValidate != nil && l.config != nil && codeOf(l.config.ValidateConnect) == codeOf(l.validate) {
		l.checking.Store(true)
		x.Hold = l.checking.Load
	}
	return l.nextBuildFrontend(x, x)
}

// validate makes pgx query the state of the server for target_session_attrs. The limits
// and the redaction of the login apply to the answer.
func (l *login) validate(ctx context.Context, conn *pgconn.PgConn) (err error) {
	defer l.checking.Store(false)
	// pgx panics if the answer has no value. A server can send any answer, and a role's
	// search_path can select a function other than PostgreSQL's own.
	defer func() {
		if recover() != nil {
			err = errors.New("the server's answer to the query for target_session_attrs is invalid")
		}
	}()
	return l.nextValidate(ctx, conn)
}

// checksSession reports whether a hook is one of pgx's for target_session_attrs.
func checksSession(hook pgconn.ValidateConnectFunc) bool {
	for _, own := range []pgconn.ValidateConnectFunc{
		pgconn.ValidateConnectTargetSessionAttrsReadWrite,
		pgconn.ValidateConnectTargetSessionAttrsReadOnly,
		pgconn.ValidateConnectTargetSessionAttrsPrimary,
		pgconn.ValidateConnectTargetSessionAttrsStandby,
		pgconn.ValidateConnectTargetSessionAttrsPreferStandby,
	} {
		if codeOf(hook) == codeOf(own) {
			return true
		}
	}
	return false
}

// ExchangeEnded records the outcome of one connection's exchange.
func (l *login) ExchangeEnded(x *pgwire.Exchange) {
	l.clearPassword()
	switch x.Outcome {
	case pgwire.Accepted:
		l.phase.Store(accepted)
		if x.Sent {
			l.tokens.Accept(l.outcomeKey(), l.token)
		}
	case pgwire.Rejected:
		l.rejected = true
		if x.Sent {
			l.tokenRejected = true
			l.tokens.Reject(l.outcomeKey(), l.token)
		}
	case pgwire.Broken:
		if x.Sent && (l.config.Port == pgBouncerPort || len(l.token.Secret()) > pgBouncerLimit) {
			l.tokenCut = true
		}
	}
}

// outcomeKey returns the key under which the outcome for a server is recorded. If a
// BeforeConnect hook has set another user, it is not the connector's own key.
func (l *login) outcomeKey() any {
	key, ok := l.key.(loginKey)
	if !ok || l.config.User == l.user {
		return l.key
	}
	key.user = l.config.User
	return key
}

// Older versions of PgBouncer close the connection if a token is longer than their
// buffer. Azure's PgBouncer listens on pgBouncerPort.
const (
	pgBouncerPort  = 6432
	pgBouncerLimit = 2048
)

// bearer makes pgx answer a request for OAUTHBEARER, with an empty token that
// the Exchange replaces.
func (l *login) bearer(context.Context) (string, error) {
	if phase := l.phase.Load(); phase != exchanging && phase != accepted {
		return "", errors.New("entrapg: token requested outside a login")
	}
	return "", nil
}

// details returns the details of the login for an error.
func (l *login) details() loginDetails {
	details := loginDetails{noEntra: l.token == nil, tokenCut: l.tokenCut}
	if l.config != nil && l.config.User == l.user {
		details.userOrigin = l.settings.OriginOutsideDSN("user")
	}
	if l.token == nil {
		return details
	}
	if c, err := claims.Parse(l.token.Secret()); err == nil {
		details.guest = c.Guest()
	}
	if l.users != nil && l.config != nil {
		details.lookup = l.users.failure(l.token, l.config.User)
	}
	return details
}

// succeed ends a login that a server has accepted.
func (l *login) succeed() { l.phase.Store(succeeded) }

// abort cleans up after a failed attempt. pgx leaves the connection open if a
// hook of its database/sql driver fails. Errors and tracers can keep the hooks,
// which do nothing from then on.
func (l *login) abort() {
	if l.conn != nil {
		l.conn.Close()
	}
	l.clearPassword()
	l.phase.Store(failed)
}

// ended reports whether the login has succeeded or failed.
func (l *login) ended() bool { return l.phase.Load() >= succeeded }

// clearPassword removes the password of entra_credential=none from pgx's
// configuration.
func (l *login) clearPassword() {
	if l.password != nil && l.config != nil {
		l.config.Password = ""
	}
}

// loginDetails are the details of a login that pgx's error does not contain.
type loginDetails struct {
	guest      bool        // the token is a guest's
	noEntra    bool        // entra_credential=none, so there is no token
	tokenCut   bool        // a connection broke after the login sent a token that may be too long for PgBouncer
	userOrigin string      // where the user comes from, if not from the DSN or the token
	lookup     *TokenError // if not nil, the reason that the user is the application's and not the identity's
}
