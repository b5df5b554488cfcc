package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgwire"
)

// An Upstream is the server to which clients are logged in. It is created by
// [NewUpstream], safe for concurrent use, and may be shared by several Servers.
type Upstream struct {
	connector *entrapg.Connector
	config    *pgx.ConnConfig
	attrs     string          // target_session_attrs
	dial      pgconn.DialFunc // of the connector's configuration, without its wrapper
}

// NewUpstream returns the upstream of a DSN. It does not dial or request a token. If the
// DSN is invalid, it returns an [*entrapg.ConfigError]. The first login reports invalid
// options.
func NewUpstream(dsn string, opts ...entrapg.Option) (*Upstream, error) {
	parsed, err := inspect.Open(dsn)
	if err != nil {
		return nil, err
	}
	defer parsed.Close()
	u := &Upstream{config: parsed.Config, attrs: parsed.Settings.Value("target_session_attrs")}
	u.connector = entrapg.NewConnector(dsn, append(slices.Clip(opts),
		entrapg.WithConnConfig(u.adjust), entrapg.WithStdlib(stdlib.OptionBeforeConnect(u.beforeConnect)))...)
	return u, nil
}

// adjust prepares connections for a Relay. TLS records have the maximal length; by default,
// Go begins with short ones, which help browsers.
func (u *Upstream) adjust(config *pgx.ConnConfig) {
	u.dial = config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := u.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return pgwire.NewConn(conn), nil
	}
	config.BuildFrontend = pgwire.Attached(config.BuildFrontend)
	if config.TLSConfig != nil {
		config.TLSConfig.DynamicRecordSizingDisabled = true
	}
	for _, f := range config.Fallbacks {
		if f.TLSConfig != nil {
			f.TLSConfig.DynamicRecordSizingDisabled = true
		}
	}
}

// A clientLogin is a client's request to log in. The context of a Connect contains it.
type clientLogin struct {
	startup    *pgwire.Startup
	clientUser bool // log in as the user of startup

	takeover pgwire.Takeover
	user     string // of the login
	servers  string // that were tried
}

type clientLoginContextKey struct{}

func (u *Upstream) beforeConnect(ctx context.Context, config *pgx.ConnConfig) error {
	l, ok := ctx.Value(clientLoginContextKey{}).(*clientLogin)
	if !ok {
		return nil
	}
	if l.clientUser {
		config.User = l.startup.Get("user")
	}
	if database := l.startup.Get("database"); database != "" {
		config.Database = database // in pgx's errors; merge sends the client's
	}
	l.user, l.servers = config.User, serversOf(&config.Config)
	l.takeover.Startup = func(user string) *pgwire.Startup { return l.merge(user, config.Database, config.RuntimeParams) }
	l.takeover.Attach(&config.Config)
	if config.ValidateConnect != nil && isPhysical(l.startup.Get("replication")) {
		config.ValidateConnect = validatePhysical(u.attrs, config.ValidateConnect)
	}
	return nil
}

// serversOf returns the addresses of a configuration, for messages.
func serversOf(config *pgconn.Config) string {
	var all []string
	for _, host := range inspect.Hosts(config) {
		_, address := pgconn.NetworkAddress(host.Host, host.Port)
		all = append(all, address)
	}
	return strings.Join(all, ", ")
}

// merge returns the client's startup message with another user, and with the settings of
// the DSN that the client does not set.
func (l *clientLogin) merge(user, database string, params map[string]string) *pgwire.Startup {
	s := l.startup.Without(func(p pgwire.Parameter) bool { return p.Name == "user" })
	s.Set("user", user)
	if s.Get("database") == "" && database != "" {
		s.Set("database", database)
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch value, ok := s.Lookup(name); {
		case !ok:
			s.Set(name, params[name])
		case name == "options": // the client's options come last and override the DSN's
			s.Set(name, params[name]+" "+value)
		}
	}
	return s
}

// logIn logs a client in.
func (u *Upstream) logIn(ctx context.Context, l *clientLogin) (*pgwire.Session, error) {
	conn, err := u.connector.Connect(context.WithValue(ctx, clientLoginContextKey{}, l))
	if err != nil {
		return nil, err
	}
	pgxConn, ok := conn.(*stdlib.Conn)
	if !ok {
		conn.Close()
		return nil, errors.New("the connection is not pgx's")
	}
	session, err := l.takeover.Session(pgxConn.Conn().PgConn(), u.dial)
	if err != nil {
		conn.Close()
	}
	return session, err
}

// Check logs in once and closes the connection.
func (u *Upstream) Check(ctx context.Context) error {
	conn, err := u.connector.Connect(ctx)
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Config returns the configuration of the DSN, without a token. It must not be
// changed.
func (u *Upstream) Config() *pgx.ConnConfig { return u.config }

// Stats returns the counters of logins and tokens.
func (u *Upstream) Stats() entrapg.Stats { return u.connector.Stats() }

// Close ends every wait for a token. Sessions continue.
func (u *Upstream) Close() error { return u.connector.Close() }

// RequestToken requests a token unless a valid one is cached. It does not connect to a
// database.
func (u *Upstream) RequestToken(ctx context.Context) error {
	_, _, err := u.connector.Credentials(ctx)
	return err
}
