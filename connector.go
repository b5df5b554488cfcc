// Package entrapg logs database/sql programs in to Azure Database for
// PostgreSQL with Microsoft Entra ID:
//
//	db := sql.OpenDB(entrapg.NewConnector("postgres://myserver.postgres.database.azure.com/mydb"))
//
// Every connection that the pool opens gets an access token of its own time as
// its password. The token is requested when the first connection needs it,
// shared by all, and replaced in the background before it expires. For pgxpool
// there is [PoolConfig]. Connections are pgx's [*stdlib.Conn].
//
// # DSN
//
// Whatever pgx takes: a postgres:// URL or key=value settings, several hosts,
// service files and PG* variables; see [pgconn.ParseConfig]. There is one key more:
//
//   - entra_scope: the scope to ask tokens for, passed on as it is. Without it,
//     the host's name tells the cloud: public (also for names outside Azure),
//     US Government, China, or Azure Cosmos DB for PostgreSQL.
//
// A password in the DSN is an error. PGPASSWORD, a service file's password and
// passfiles are ignored.
//
// # Credential
//
// Without [WithCredential], azidentity.DefaultAzureCredential is made when the
// first connection is opened. It finds the identity of the Azure service that
// the program runs on, or the developer's own from the Azure CLI; the variable
// AZURE_TOKEN_CREDENTIALS narrows its choice.
//
// # User
//
// The PostgreSQL user is the DSN's, else the service file's, else PGUSER, else
// the one that the token is for: a managed identity's name, a person's user
// principal name, the name of the resource that a system-assigned identity
// belongs to, or a service principal's display name, or failing that its
// application ID. It is never the operating
// system's user. Guests set user, because their roles' names (with #EXT#) are
// not what their tokens call them. Where a token for the database names nobody, as those of
// user-assigned identities do not, one more token, for Azure Resource Manager,
// is requested to find the name, once for each identity. A member of a group
// who logs in as the group sets user to the group's name.
//
// # TLS
//
// The token is a password, good for up to a day. So:
//
//   - Without sslmode, verify-full applies.
//   - A server with a name of Azure Database for PostgreSQL is always verified
//     as with verify-full, also under sslmode=require, which Azure's portal
//     suggests.
//   - Elsewhere require, verify-ca and verify-full do what they do in pgx.
//   - Plaintext takes sslmode=disable, and hosts that are all loopback or Unix
//     sockets. Anything else that could send the token in plaintext, prefer and
//     allow among it, is a [ConfigError].
//
// The roots are the system's, or sslrootcert's. To verify a name other than the
// host outside Azure's names, as with a tunnel, set TLSConfig.ServerName by
// [WithConnConfig].
//
// # Errors
//
// What is wrong with a DSN or an option comes back from Connect, and so from
// the first query or Ping, before anything is dialled. [ConfigError],
// [TokenError], [UsernameError] and [LoginError] tell apart what failed; none
// of them, and no log record, ever holds a token. A login that the server
// refuses with a token from the cache is tried once more with a new one.
// An unreachable server is pgx's own error, a *pgconn.ConnectError.
//
// # Secrets
//
// The token stays in the connector's memory, and is lent to pgx only while a
// connection logs in: neither an open connection's configuration nor what a
// tracer gets at the start has it. Where a login breaks off midway, without a
// word of the server, a tracer could find it in the [pgconn.ConnectError].
package entrapg

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

var (
	_ driver.Connector = (*Connector)(nil)
	_ io.Closer        = (*Connector)(nil)
)

// A Connector opens connections that log in with a Microsoft Entra token. It
// is made by [NewConnector], safe for concurrent use, and runs no goroutine
// but for a request for a token that is under way.
type Connector struct {
	settings *settings
	err      error // what is wrong with the DSN or an option

	logins, refusals, retries atomic.Int64
}

// NewConnector returns a connector for [database/sql.OpenDB]. The package
// documentation says what a DSN may hold. PG* variables and files that the DSN
// refers to are read now; what is wrong with any of it comes back from Connect.
//
// Connectors that are given one credential by [WithCredential] share its tokens,
// one for each scope. Without that option a connector makes a credential of its
// own.
func NewConnector(dsn string, opts ...Option) *Connector {
	return defaultDriver.newConnector(dsn, opts, false)
}

// newConnector makes a connector. Shared tells that the credential which the DSN
// chooses is that of all other connectors whose DSN chooses the same.
func (d *entraDriver) newConnector(dsn string, opts []Option, shared bool) *Connector {
	s, err := newSettings(&d.sources, dsn, opts, shared, func(dsn string) (*pgx.ConnConfig, error) {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			return nil, err
		}
		for key := range config.RuntimeParams {
			if strings.HasPrefix(key, "pool_") {
				return nil, &ConfigError{Setting: key, Problem: "this setting is pgxpool's: use PoolConfig, or the methods of sql.DB"}
			}
		}
		return config, nil
	})
	return &Connector{settings: s, err: err}
}

// Connect opens a connection; database/sql calls it. The connection is a
// [*stdlib.Conn]. Waiting for a token ends with ctx, and after 30 seconds at
// the latest; connect_timeout counts from then on, for each host.
//
// Its errors are [*ConfigError], [*TokenError], [*UsernameError] and
// [*LoginError], of which a refused token that could not be replaced has two;
// pgx's own for a server that cannot be reached; and those of hooks. After Close
// it fails. Where ctx has ended, errors.Is finds its error.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	switch {
	case c.err != nil:
		return nil, c.err
	case c.settings == nil:
		return nil, &ConfigError{Setting: "dsn", Problem: "the Connector was not made by NewConnector"}
	case c.settings.account.isClosed():
		return nil, errClosed
	}
	account, user := c.settings.account, c.settings.config.User
	t, isNew, err := account.get(ctx, user)
	if err != nil {
		return nil, err
	}
	conn, refused, err := c.login(ctx, t)
	if isNew || !refused {
		return conn, err
	}
	// The server stopped accepting this token before its time.
	next, _, tokenErr := account.get(ctx, user)
	switch {
	case tokenErr != nil:
		return nil, fmt.Errorf("%w; for another attempt: %w", err, tokenErr)
	case next.value == t.value:
		user, _ := next.userFor(user)
		account.refuse(user, next) // what the server thinks of it is known
		return nil, err
	}
	account.logger.Warn("entrapg: login refused, trying once more with a new token", "error", err)
	c.retries.Add(1)
	conn, _, err = c.login(ctx, next)
	return conn, err
}

// login makes one attempt with t. Refused tells that the server turned the
// user away, and not merely that something failed.
func (c *Connector) login(ctx context.Context, t *token) (conn driver.Conn, refused bool, err error) {
	user, err := t.userFor(c.settings.config.User)
	if err != nil {
		return nil, false, err
	}
	config := *c.settings.config
	account := c.settings.account
	l := account.lend(&config, user, t, func() { refused = true })
	conn, err = stdlib.GetConnector(config, c.settings.stdlib...).Connect(ctx)
	switch {
	case err == nil: // whatever a host before the last one said
		c.logins.Add(1)
		return conn, false, nil
	case l.accepted: // a hook failed
		l.abort()
		return nil, false, fmt.Errorf("entrapg: %w", err)
	}
	l.abort()
	if refused {
		c.refusals.Add(1)
		account.refuse(user, t)
	}
	return nil, refused, connectError(user, err, t == account.password)
}

// Driver returns pgx's driver, which the connections belong to.
func (c *Connector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

// Close ends every wait for a token; [database/sql.DB.Close] calls it. The last
// of the connectors that share a credential forgets its token and ends a request
// for one. Open connections are left alone, and Connect fails from now on. It may
// be called more than once and returns nil.
func (c *Connector) Close() error {
	if c.settings != nil {
		c.settings.account.close()
	}
	return nil
}

// Stats are counts since a connector was made, and its state now. What is said
// of tokens is about all connectors that share the credential, and the counts
// begin with the first of them.
type Stats struct {
	Logins        int64     // connections opened
	LoginsRefused int64     // attempts that the server refused with an error of SQLSTATE class 28
	LoginRetries  int64     // second attempts, with a new token
	TokenRequests int64     // calls of the credential, those for Azure Resource Manager among them
	TokenFailures int64     // those that brought no token of use, and attempts to make a credential that failed
	TokenExpires  time.Time // of the token in use; zero where there is none
	User          string    // PostgreSQL user in use; empty while it is not known
}

// Stats may be called at any time, by any goroutine. It locks nothing, so the
// figures can be of slightly different moments.
func (c *Connector) Stats() Stats {
	stats := Stats{Logins: c.logins.Load(), LoginsRefused: c.refusals.Load(), LoginRetries: c.retries.Load()}
	if c.settings == nil {
		return stats
	}
	stats.User = c.settings.config.User
	tokens := c.settings.account.source
	if tokens == nil {
		return stats
	}
	stats.TokenRequests, stats.TokenFailures = tokens.requests.Load(), tokens.failures.Load()
	if t := tokens.current.Load(); t != nil && !c.settings.account.isClosed() {
		stats.TokenExpires = t.expires
		if stats.User == "" {
			stats.User = t.name.Role
		}
	}
	return stats
}
