// Package entrapg logs database/sql programs in to Azure Database for
// PostgreSQL with Microsoft Entra ID:
//
//	db := sql.OpenDB(entrapg.NewConnector("postgres://myserver.postgres.database.azure.com/mydb"))
//
// Every connection that the pool opens gets an access token of its own time as
// its password. The token is requested when the first connection needs it,
// shared by all, and replaced in the background before it expires. For pgxpool
// there is [PoolConfig], and for tools that take the name of a driver and a DSN,
// [database/sql.Open] with "entrapg". Connections are pgx's [*stdlib.Conn].
//
// # DSN
//
// Whatever pgx takes: a postgres:// URL or key=value settings, several hosts,
// service files and PG* variables; see [pgconn.ParseConfig]. Four keys more are
// entrapg's own and do not reach the server:
//
//   - entra_credential: which credential of azidentity to use: default,
//     environment, workloadidentity, managedidentity, azurecli,
//     azuredevelopercli or azurepowershell, or azidentity's own name for it, in
//     any case. With none, the DSN's own password logs in and Entra is not asked:
//     for development, so that one program serves both places.
//   - entra_client_id: the identity to use, of managedidentity and workloadidentity.
//   - entra_tenant_id: the tenant, of all but environment and managedidentity.
//   - entra_scope: the scope to ask tokens for, passed on as it is. Without it,
//     the host's name tells the cloud: public, US Government, China, or Azure
//     Cosmos DB for PostgreSQL. For names outside Azure, AZURE_AUTHORITY_HOST
//     does, else it is the public one.
//
// A password in the DSN is an error, but for entra_credential=none. PGPASSWORD, a
// service file's password and passfiles are ignored. Where nothing sets
// connect_timeout, it is 30 seconds: a server that takes the connection and then
// says nothing would hold a sql.DB up for ever. As in PostgreSQL,
// connect_timeout=0 means no limit.
//
// # Credential
//
// Without [WithCredential] and entra_credential, it is
// azidentity.DefaultAzureCredential. It finds the identity of the Azure service
// that the program runs on, or the developer's own from the Azure CLI; the
// variable AZURE_TOKEN_CREDENTIALS narrows its choice. A credential that the
// program does not give is made when the first connection is opened, from what
// the environment says then, for the authority of the host's cloud, or that of
// AZURE_AUTHORITY_HOST.
//
// A credential's tokens, one for each scope, serve all who use it: connectors and
// pool configurations that are given the same one, and pools opened by sql.Open
// whose DSNs choose the same.
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
// is requested to find the name; what comes of it is remembered. A member of a group
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
// Inside it, require_auth=password,oauth applies unless the DSN has another: who asks
// for a hash of the token, or for nothing at all, is no server of Azure's, or the
// role is not mapped.
//
// The roots are the system's, or sslrootcert's. To verify a name other than the
// host outside Azure's names, as with a tunnel, set TLSConfig.ServerName by
// [WithConnConfig].
//
// # Errors
//
// What is wrong with a DSN or an option comes back from Connect, and so from
// the first query or Ping, before anything is dialled; sql.Open returns it itself. [ConfigError],
// [TokenError], [UsernameError] and [LoginError] tell apart what failed; none
// of them, and no log record, ever holds a token. A login that the server
// refuses with a token from the cache is tried once more with a new one, if the
// credential has another: azidentity's own mostly keep theirs until shortly
// before it expires.
// An unreachable server is pgx's own error, a *pgconn.ConnectError.
//
// # Secrets
//
// The token stays in the connector's memory, and is lent to pgx only while a
// connection logs in: neither an open connection's configuration nor what a
// tracer gets at the start has it. Where a login breaks off midway, without a
// word of the server, a tracer could find it in the [pgconn.ConnectError]. The
// password of entra_credential=none is part of the DSN, which pgx's configuration
// keeps.
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

	"github.com/entrapg/entrapg/internal/refusal"
)

var (
	_ driver.Connector = (*Connector)(nil)
	_ io.Closer        = (*Connector)(nil)
)

// A Connector opens connections that log in with a Microsoft Entra token. It
// is made by [NewConnector], safe for concurrent use, and runs no goroutine
// but for a request for a token that is under way, and what net/http keeps for a
// while after one.
type Connector struct {
	settings *settings
	err      error         // what is wrong with the DSN or an option
	driver   driver.Driver // what opened it, nil for NewConnector

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
// the latest; connect_timeout counts from then on, for each address of a host.
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
	account := c.settings.account
	t, user, final, err := account.get(ctx, c.settings.config.User)
	if err != nil {
		return nil, err
	}
	conn, refused, err := c.login(ctx, user, t)
	if !refused || final {
		return conn, err
	}
	// The server stopped accepting this token before its time.
	next, user, _, tokenErr := account.get(ctx, c.settings.config.User)
	switch {
	case tokenErr != nil:
		return nil, fmt.Errorf("%w; for another attempt: %w", err, tokenErr)
	case next.value == t.value:
		account.refuse(user, next) // what the server thinks of it is known
		return nil, fmt.Errorf("%w; for another attempt, the credential has no other token: it keeps this one, which is good until %s", err, t.expires.UTC().Format(time.RFC3339))
	}
	account.logger.Warn("entrapg: login refused, trying once more with a new token", "error", err)
	c.retries.Add(1)
	conn, _, err = c.login(ctx, user, next)
	return conn, err
}

// login makes one attempt as user with t. Refused tells that the server turned
// the user away, and not merely that something failed.
func (c *Connector) login(ctx context.Context, user string, t *token) (conn driver.Conn, refused bool, err error) {
	config := *c.settings.config
	account := c.settings.account
	l := account.lend(&config, user, t)
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
	if !l.refused && refusal.OfBearer(err) { // which pgx's hook does not tell
		l.refused = true
		account.refuse(user, t)
	}
	if l.refused {
		c.refusals.Add(1)
	}
	return nil, l.refused, connectError(user, err, t == account.password)
}

// Driver returns pgx's driver, which the connections belong to. For what
// [database/sql.Open] opened, it is the driver "entrapg", for those who wrap drivers.
func (c *Connector) Driver() driver.Driver {
	if c.driver != nil {
		return c.driver
	}
	return stdlib.GetDefaultDriver()
}

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
	c.settings.account.report(&stats)
	return stats
}
