package entrapg

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/internal/refusal"
)

// A login lends a token to pgx for one attempt to connect. The token is in
// pgx's configuration only from the moment that the network connection stands
// until the server has decided: a tracer, an error or an open connection,
// which all carry that configuration, have nothing to give away. Pgx makes an
// attempt in one goroutine.
type login struct {
	config   *pgconn.Config // pgx's own copy, nil until the network connection stands
	conn     net.Conn
	reader   loginReader
	refused  bool // by a host, with this token
	accepted bool // the server let the user in; from here on nothing changes
}

// lend prepares config to log in as user with t. The account learns when a host
// refuses or accepts it. Config may be a shallow copy: its fields are set, and
// what they point to is left alone. Hooks that it has already keep working.
func (a *account) lend(config *pgx.ConnConfig, user string, t *token) *login {
	l := &login{}
	config.User = user

	afterNetConnect := config.AfterNetConnect
	config.AfterNetConnect = func(ctx context.Context, attempt *pgconn.Config, conn net.Conn) (net.Conn, error) {
		if afterNetConnect != nil {
			wrapped, err := afterNetConnect(ctx, attempt, conn)
			if err != nil {
				return conn, err // pgx closes what it gets
			}
			conn = wrapped
		}
		if !l.accepted { // else somebody connects with an open connection's configuration
			l.config, l.conn = attempt, conn
			attempt.Password = t.value
		}
		return conn, nil
	}

	if t != a.password && config.OAuthTokenProvider == nil {
		config.OAuthTokenProvider = func(context.Context) (string, error) { return l.lent() }
	}

	buildFrontend := config.BuildFrontend
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		if l.accepted { // as above
			return buildFrontend(r, w)
		}
		l.reader = loginReader{Reader: r}
		return buildFrontend(&l.reader, w)
	}

	onPgError := config.OnPgError
	config.OnPgError = func(conn *pgconn.PgConn, e *pgconn.PgError) bool {
		if l.accepted {
			return onPgError == nil || onPgError(conn, e)
		}
		l.takeBack()
		if t != a.password { // else a short word perhaps, which stands in the text by chance
			redact(e, t.value)
		}
		if refusal.IsLogin(e) {
			l.refused = true
			a.refuse(user, t)
		}
		if onPgError != nil {
			onPgError(conn, e)
		}
		return false // ends the attempt with e; true would have pgx repeat the server's words
	}

	afterConnect := config.AfterConnect
	config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if !l.accepted {
			l.takeBack()
			l.config = nil
			l.accepted = true
			a.accept(user, t)
		}
		if afterConnect != nil {
			return afterConnect(ctx, conn)
		}
		return nil
	}
	return l
}

// lent returns the token to a server that asks for it by OAUTHBEARER, while the
// login lasts: open connections have this function too.
func (l *login) lent() (string, error) {
	if l.config == nil || l.config.Password == "" {
		return "", errors.New("entrapg: a token is for logging in alone")
	}
	return l.config.Password, nil
}

// takeBack removes the token once it has been used.
func (l *login) takeBack() {
	if l.config != nil {
		l.config.Password = ""
	}
}

// abort cleans up after a failed attempt. pgx leaves the network connection
// open where a hook of database/sql's driver failed; closing it twice does no
// harm.
func (l *login) abort() {
	l.takeBack()
	if l.conn != nil {
		l.conn.Close()
	}
}
