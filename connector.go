package entrapg

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg/internal/pgfail"
	"github.com/entrapg/entrapg/internal/token"
)

var (
	_ driver.Connector = (*Connector)(nil)
	_ io.Closer        = (*Connector)(nil)
)

// A Connector opens connections that log in with a Microsoft Entra token. It is
// created by [NewConnector] and safe for concurrent use. An idle connector has no
// goroutines: one runs during a token request, and while a warning is logged.
type Connector struct {
	config   *config       // nil if err is not
	err      error         // of the DSN or an option
	driver   driver.Driver // that created it; nil for NewConnector
	identity *identity     // nil with entra_credential=none
	key      any           // a loginKey, as an interface so that Connect does not allocate
	logger   *slog.Logger

	closed chan struct{}
	close  func() // idempotent

	logins, rejections, retries atomic.Int64
}

// A loginKey identifies the logins to the same servers as the same user. If a server
// accepts or rejects a token for one of them, that applies to all.
type loginKey struct{ servers, user string }

// NewConnector returns a connector for [database/sql.OpenDB]. The package
// documentation describes the DSN. NewConnector reads PG* variables and the files
// that the DSN names. If anything is invalid, Connect returns the error.
//
// Connectors that are given the same credential by [WithCredential] share its
// tokens. Without that option, each connector creates its own credential.
func NewConnector(dsn string, opts ...Option) *Connector {
	c, err := parseDSN(dsn, pgx.ParseConfig)
	return newConnector(&defaultDriver.identities, opts, false, c, err)
}

// NewConnectorWithConfig is like [NewConnector] for a configuration that the
// program has parsed with [pgx.ParseConfig], and possibly changed. It copies the
// configuration. Tracers, hooks and most other fields remain in use. The following
// are changed, so that logins are as safe as with a DSN:
//
//   - User is used only if the DSN, a service file or PGUSER sets it, or if the
//     program has changed it. The operating system's user must be in the DSN to be
//     used. Otherwise the user is derived from the token.
//   - Password is dropped. A password in the DSN is an error.
//   - Fallbacks to plaintext that pgx adds by default are removed, and servers are
//     verified as with verify-full unless sslmode is set.
//   - The entra_ keys of the DSN apply and are not sent to the server.
//
// With entra_credential=none, Password is used.
func NewConnectorWithConfig(existing *pgx.ConnConfig, opts ...Option) *Connector {
	c, err := adoptConfig(existing)
	return newConnector(&defaultDriver.identities, opts, false, c, err)
}

// newConnector returns a connector that uses the identities of a registry. config and
// err are the results of parseDSN or adoptConfig; an error of an option is reported
// first. If shared is true, DSNs that choose the same credential share it. The identity
// is also released if the connector is garbage-collected without Close.
func newConnector(identities *registry, opts []Option, shared bool, config *config, err error) *Connector {
	o, invalid := collect(opts)
	if invalid != nil {
		return &Connector{err: invalid}
	}
	if err == nil {
		err = config.apply(o, shared)
	}
	if err != nil {
		return &Connector{err: err}
	}
	c := &Connector{config: config, logger: o.logger, closed: make(chan struct{})}
	c.key = keyFor(config.pgx, config.pgx.User)
	c.close = sync.OnceFunc(func() { close(c.closed) })
	if config.password != nil {
		return c
	}
	c.identity = identities.acquire(config.identity, config.credential)
	cleanup := runtime.AddCleanup(c, identities.release, c.identity)
	c.close = sync.OnceFunc(func() {
		cleanup.Stop()
		runtime.KeepAlive(c) // otherwise the cleanup could run too, and release twice
		close(c.closed)
		identities.release(c.identity)
	})
	return c
}

// Connect opens a connection, which is a [*stdlib.Conn]; database/sql calls it. It
// waits for tokens for at most 30 seconds. The limit is 90 seconds while a virtual
// machine's metadata service is temporarily unavailable, and 5 minutes for a
// credential that a user completes in a browser. After that, connect_timeout bounds
// the lookup of each host's name, and then the login at each of its addresses.
//
// Its errors are [*ConfigError], [*TokenError], [*UsernameError], [*LoginError] and
// [ErrClosed], pgx's error if no server can be reached, and the errors of hooks. If a
// rejected token cannot be replaced, the error is a LoginError joined with the reason.
// If ctx ends, the error wraps context.Canceled or context.DeadlineExceeded.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := c.checkUsable(); err != nil {
		return nil, err
	}
	if c.identity == nil {
		conn, _, err := c.attempt(ctx, c.config.pgx.User, nil)
		return conn, err
	}
	wait := newTokenWait(c.identity.credential)
	t, user, fetched, err := c.credentials(ctx, wait, c.key, c.config.pgx.User)
	if err != nil {
		return nil, err
	}
	conn, rejected, err := c.attempt(ctx, user, t)
	if !rejected || fetched {
		return conn, err
	}
	// A cached token can stop working before it expires.
	other, user, retryErr := c.replacement(ctx, wait, t)
	if retryErr != nil {
		return nil, fmt.Errorf("%w; not retried: %w", err, retryErr)
	}
	c.retries.Add(1)
	logLater(c.logger, "entrapg: login rejected, retrying with another token", "error", err)
	conn, _, err = c.attempt(ctx, user, other)
	return conn, err
}

// Credentials returns the PostgreSQL user and the token that a connection would
// log in with now, for drivers other than pgx and for child processes such as
// pg_dump. With entra_credential=none, it returns the password. Its errors are
// those of Connect that occur before anything is dialed.
//
// The caller must send the token only to a server that it has verified:
// sslmode=verify-full in libpq and lib/pq. The token is valid for minutes to
// hours; call Credentials again for each connection. If a server rejects the token,
// Credentials does not learn of it: only Connect replaces a rejected token.
func (c *Connector) Credentials(ctx context.Context) (user, token string, err error) {
	if err := c.checkUsable(); err != nil {
		return "", "", err
	}
	user = c.config.pgx.User
	if c.identity == nil {
		return user, c.config.password(), nil
	}
	t, user, _, err := c.credentials(ctx, newTokenWait(c.identity.credential), c.key, user)
	if err != nil {
		return "", "", err
	}
	return user, t.Secret(), nil
}

// checkUsable returns an error if the connector is invalid or closed.
func (c *Connector) checkUsable() error {
	switch {
	case c.err != nil:
		return c.err
	case c.config == nil:
		return &ConfigError{Setting: "dsn", Problem: "the Connector was not created by NewConnector"}
	}
	select {
	case <-c.closed:
		return ErrClosed
	default:
		return nil
	}
}

// credentials returns a token, and the user to log in as: user or, if that is empty,
// the token's. fetched reports whether the token is newly fetched instead of cached.
func (c *Connector) credentials(
	ctx context.Context, wait *tokenWait, key any, user string,
) (t *token.Token, _ string, fetched bool, err error) {
	if t, user := c.identity.fresh(key, user); t != nil {
		return t, user, false, nil
	}
	ctx, done := wait.start(ctx)
	defer done()
	return c.identity.get(ctx, c.request(key), user)
}

// replacement returns a token other than the rejected one, and its user.
func (c *Connector) replacement(
	ctx context.Context, wait *tokenWait, rejected *token.Token,
) (*token.Token, string, error) {
	ctx, done := wait.start(ctx)
	defer done()
	return c.identity.replacement(ctx, c.request(c.key), rejected, c.config.pgx.User)
}

func (c *Connector) request(key any) token.Request {
	return token.Request{Key: key, Closed: c.closed, Log: c.logger}
}

// keyFor returns the key of logins as user to the hosts of a configuration.
func keyFor(config *pgx.ConnConfig, user string) any {
	servers := net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	for _, f := range config.Fallbacks {
		servers += "," + net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))
	}
	return loginKey{servers, user}
}

// login returns the hooks of one attempt. derived reports whether the user is
// derived from t.
func (c *Connector) login(t *token.Token, key any, derived bool, password func() string) *login {
	l := &login{policy: c.config.tls, token: t, key: key, settings: c.config.settings, password: password}
	if c.identity != nil {
		l.tokens = c.identity.tokens
		if derived {
			l.users = c.identity.users
		}
	}
	return l
}

// attempt logs in once as user with t, which is nil with entra_credential=none.
// rejected reports whether a server got the token and rejected the login.
func (c *Connector) attempt(
	ctx context.Context, user string, t *token.Token,
) (conn driver.Conn, rejected bool, err error) {
	config := *c.config.pgx
	l := c.login(t, c.key, config.User == "", c.config.password)
	l.verifications = c.config.verifications
	l.install(&config, user)
	conn, err = stdlib.GetConnector(config, c.config.stdlib...).Connect(ctx)
	if err == nil {
		l.succeed()
		c.logins.Add(1)
		return conn, false, nil
	}
	if done := contextError(ctx); done != nil && !errors.Is(err, done) {
		err = fmt.Errorf("%w: %w", err, done)
	}
	details, phase := l.details(), l.phase.Load()
	l.abort()
	if l.rejected {
		c.rejections.Add(1)
	}
	failed := &config.Config
	if l.config != nil {
		failed = l.config // a hook may have set another user in it
	}
	var invalid *ConfigError
	var username *UsernameError
	switch {
	case errors.As(err, &invalid):
		return nil, false, invalid
	case errors.As(err, &username):
		return nil, false, username
	case phase == connecting && len(pgfail.ServerErrors(err)) > 0:
		return nil, false, &ConfigError{
			Setting: "BuildFrontend", Problem: "a BeforeConnect hook must not replace it; set it by WithConnConfig", Err: err,
		}
	case phase == accepted && pgfail.Classify(err, pgfail.Login{}).Kind == pgfail.NoSuitableHost:
		return nil, false, fmt.Errorf("entrapg: %w: %s", err, Explain(err))
	case phase == accepted: // a hook failed
		return nil, false, fmt.Errorf("entrapg: %w", err)
	}
	return nil, l.tokenRejected, loginError(failed, err, details)
}

// contextError returns the error of ctx if it is done or its deadline has passed. A dial and a name
// resolution can time out moments before their context is done.
func contextError(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// beforeConnect is the BeforeConnect hook of a pgxpool. It makes config log in with
// a token or, if entra_credential is none, with password.
func (c *Connector) beforeConnect(ctx context.Context, config *pgx.ConnConfig, password func() string) error {
	if err := c.config.tls.apply(&config.Config); err != nil {
		return err
	}
	user, derived := config.User, config.User == ""
	key := keyFor(config, user) // a hook may have changed the hosts
	var t *token.Token
	if c.identity != nil {
		var err error
		if t, user, _, err = c.credentials(ctx, newTokenWait(c.identity.credential), key, user); err != nil {
			return err
		}
	}
	l := c.login(t, key, derived, password)
	l.verifications = verificationsOf(&config.Config)
	l.install(config, user)
	afterConnect := config.AfterConnect
	config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		l.succeed()
		if afterConnect != nil {
			return afterConnect(ctx, conn)
		}
		return nil
	}
	return nil
}

// Driver returns pgx's driver, to which the connections belong. For a connector
// of [database/sql.Open], it returns the driver "entrapg", for libraries that
// wrap drivers.
func (c *Connector) Driver() driver.Driver {
	if c.driver != nil {
		return c.driver
	}
	return stdlib.GetDefaultDriver()
}

// Close ends every wait for a token; [database/sql.DB.Close] calls it. When the
// last of the connectors that share a credential is closed, its token is dropped
// and a request in flight is canceled. Open connections stay open. After Close,
// Connect returns [ErrClosed]. Close is idempotent and returns nil.
func (c *Connector) Close() error {
	if c.close != nil {
		c.close()
	}
	return nil
}

// Stats are the counters of a connector since it was created, and its current state.
// The values about tokens are for all connectors that share the credential.
type Stats struct {
	Logins         int64     // connections opened
	LoginsRejected int64     // attempts that a server rejected with SQLSTATE class 28 or by OAUTHBEARER
	LoginRetries   int64     // second attempts, with another token
	TokenRequests  int64     // calls to the credential, including those for Azure Resource Manager
	TokenFailures  int64     // calls that returned no usable token, or could not be made because there is no credential
	TokenExpiry    time.Time // when the current token expires; zero if there is none
	User           string    // current PostgreSQL user; empty if it is not known yet
}

// Stats returns the current counters. It does not block, so they are not a
// consistent snapshot.
func (c *Connector) Stats() Stats {
	stats := Stats{Logins: c.logins.Load(), LoginsRejected: c.rejections.Load(), LoginRetries: c.retries.Load()}
	if c.config == nil {
		return stats
	}
	stats.User = c.config.pgx.User
	if c.identity != nil {
		c.identity.report(&stats, c.checkUsable() == nil)
	}
	return stats
}
