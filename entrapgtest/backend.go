package entrapgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// A backend is the real PostgreSQL behind a front.
type backend struct {
	config   *pgx.ConnConfig // of a superuser
	protocol pgwire.Version  // the newest one that PostgreSQL accepts
	roles    *roles
	primary  *backend // nil if it is not a replica
}

// newBackend connects to PostgreSQL to get its version.
func newBackend(ctx context.Context, dsn string, r *roles, primary *backend) (*backend, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	b := &backend{config: config, protocol: pgwire.Version30, roles: r, primary: primary}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	major := 0
	if _, err := fmt.Sscanf(conn.PgConn().ParameterStatus("server_version"), "%d", &major); err != nil {
		return nil, fmt.Errorf("server_version: %w", err)
	}
	if major >= 18 {
		b.protocol = pgwire.Version32
	}
	return b, nil
}

// exec runs statements as superuser.
func (b *backend) exec(ctx context.Context, sql string) error {
	conn, err := pgx.ConnectConfig(ctx, b.config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// openSession logs in as a mapped role, with the client's startup message.
func (b *backend) openSession(
	ctx context.Context, role string, startup *pgwire.Startup,
) (*pgwire.Session, *rejection) {
	config := b.config.Config.Copy()
	config.User, config.DialFunc = role, b.dial
	takeover := &pgwire.Takeover{Startup: func(string) *pgwire.Startup { return startup }}
	takeover.Install(config)
	conn, err := b.logIn(ctx, config)
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr):
		return nil, &rejection{
			code: pgErr.Code, message: pgErr.Message, reason: "the token is valid, but PostgreSQL rejects the login",
			response: takeover.ErrorResponse(),
		}
	case err != nil:
		return nil, unreachable(err)
	}
	session, err := takeover.Session(conn, b.config.DialFunc)
	if err != nil {
		return nil, unreachable(err)
	}
	return session, nil
}

// logIn logs in as a mapped role. If an administrator has mapped the role in SQL, logIn
// first sets its password.
func (b *backend) logIn(ctx context.Context, config *pgconn.Config) (*pgconn.PgConn, error) {
	config.Password = b.roles.password(config.User)
	conn, err := pgconn.ConnectConfig(ctx, config)
	if !hasCode(err, invalidPassword) {
		return conn, err
	}
	if err := b.setPassword(ctx, config.User); err != nil {
		return nil, err
	}
	for { // until the password has reached the replica
		conn, err = pgconn.ConnectConfig(ctx, config)
		if b.primary == nil || !hasCode(err, invalidPassword) || sleep(ctx, 10*time.Millisecond) != nil {
			return conn, err
		}
	}
}

func (b *backend) setPassword(ctx context.Context, role string) error {
	secret := b.roles.verifier(role)
	err := b.exec(ctx, fmt.Sprintf("alter role %s password '%s'", pgx.Identifier{role}.Sanitize(), secret))
	if hasCode(err, readOnly) && b.primary != nil {
		return b.primary.setPassword(ctx, role)
	}
	return err
}

// connect opens a connection on which nobody has logged in. It does not use TLS.
func (b *backend) connect(ctx context.Context) (net.Conn, error) {
	network, address := pgconn.NetworkAddress(b.config.Host, b.config.Port)
	return b.dial(ctx, network, address)
}

func (b *backend) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := b.config.DialFunc(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return pgwire.NewConn(conn), nil
}

// cancel forwards a cancel request: clients have PostgreSQL's keys.
func (b *backend) cancel(ctx context.Context, request pgwire.CancelRequest) {
	canceler := pgwire.Canceler{Dial: b.config.DialFunc}
	canceler.Network, canceler.Address = pgconn.NetworkAddress(b.config.Host, b.config.Port)
	_ = canceler.Cancel(ctx, request) // clients get no response to a cancel request
}

// SQLSTATEs of PostgreSQL.
const (
	readOnly        = "25006"
	duplicateObject = "42710"
)

func hasCode(err error, codes ...string) bool {
	var response *pgconn.PgError
	return errors.As(err, &response) && slices.Contains(codes, response.Code)
}
