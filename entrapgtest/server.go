// Package entrapgtest tests programs that log in to Azure Database for PostgreSQL with
// Microsoft Entra ID, without Azure. It starts a real PostgreSQL behind a front that
// checks tokens as Azure does, and a [Tenant] that issues them.
//
//	srv, err := entrapgtest.Start(ctx, entrapgtest.Config{})
//	if err != nil { … }
//	defer srv.Close()
//
//	app := srv.Tenant.NewUserAssignedIdentity("shop-api")
//	if err := srv.CreateRole(ctx, "", app); err != nil { … }
//	db := sql.OpenDB(entrapg.NewConnector(srv.DSN(), entrapg.WithCredential(app)))
//
// Start one server for all tests of a package, in TestMain. Starting takes a second or
// two. The first start with a version of PostgreSQL takes a few seconds more, because it
// runs initdb; later ones copy the result from the user's cache directory. Creating a
// role or a database for each test takes milliseconds. Select it with [Server.DSN].
//
// # Credentials
//
// A [Principal] is a credential itself. The tenant also answers over HTTPS as Entra
// does: [Tenant.ClientOptions] direct azidentity's credentials to it, and
// [Principal.Environ] returns the variables for EnvironmentCredential. A [Host] has the
// endpoints of managed identities: App Service, the Instance Metadata Service, Azure Arc
// and Service Fabric. A Go program in a separate process trusts the tenant's certificate
// if SSL_CERT_FILE is [Server.CAFile], except on macOS and Windows.
//
// # Roles
//
// [Server.CreateRole] maps a role to a principal. SQL scripts that create roles with
// Azure's functions work too: see [Server.CreateAdmin].
//
// # Failures
//
// [Server.SetFaults] injects failures of Entra, of managed identity endpoints and of
// logins. [Server.RevokeTokens] invalidates all tokens, [Server.Restart] restarts
// PostgreSQL, and [Server.Logins] returns the attempts to log in.
package entrapgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// Config configures a server. The zero value is valid.
type Config struct {
	// Upstream is the DSN of an existing PostgreSQL, with a superuser and the password.
	// If it is empty, the server starts a throwaway PostgreSQL. Mapped roles get new
	// passwords in an existing PostgreSQL, and Close does not remove them. Upstream can
	// be the DSN of a PgBouncer.
	Upstream string

	// Primary is another server. If it is set, the throwaway PostgreSQL is a streaming
	// replica of Primary's. It is read-only until AdminDSN executes "select
	// pg_promote()". The two servers share the Tenant and the roles. Each has its own
	// certificate and its own login faults, and must be closed. It requires the program
	// pg_basebackup, and a Primary without Upstream.
	Primary *Server

	// TokenLife is the lifetime of tokens: an hour by default. Ten seconds and more are
	// rounded down to whole seconds. Over HTTP, the remaining lifetime is always rounded
	// down to whole seconds, so a client considers a token expired in its last second.
	TokenLife time.Duration

	// Audience is the resource that tokens must be for: by default, Azure Database for
	// PostgreSQL in the public cloud.
	Audience string

	// GroupSync sets Azure's server parameter pgaadauth.enable_group_sync: each member of
	// a group that has a role gets a role, which inherits the group's. That happens every
	// 30 minutes, with [Server.SyncGroups], and when an administrator calls the function.
	// Members can still log in as the group's role.
	GroupSync bool

	// OAuth makes the server request tokens by OAUTHBEARER, as PostgreSQL 18 and later
	// can, instead of as a password.
	OAuth bool

	// StateDir is the directory in which the server keeps its state between starts: the
	// certificate authority, the tenant with its key, and the data and roles of the
	// throwaway PostgreSQL. Principals and hosts that are created with the same names in
	// the same order get the same IDs and secrets. The directory must be new, empty or an
	// earlier StateDir. Its permissions become 0700. One server at a time can use it. If
	// StateDir is empty, each start creates a new state, and Close removes it.
	StateDir string

	// Addr is the address to listen on, "127.0.0.1:0" by default.
	Addr string

	// TenantAddr is the address of the tenant over HTTPS, "127.0.0.1:0" by default.
	TenantAddr string

	// IdentityAddr is the address of the managed identity endpoints over plain HTTP,
	// "127.0.0.1:0" by default.
	IdentityAddr string

	// OnLogin, if set, is called for every attempt to log in, before the client gets the
	// result. Many goroutines call it at the same time.
	OnLogin func(Login)

	// Hostnames are names and IP addresses that the certificate is valid for, besides
	// localhost, the loopback addresses and the addresses that the server listens on. If
	// it listens on all addresses (0.0.0.0 or ::), [Server.DSN], [Tenant.URL] and
	// [Host.Environ] use the first one without a wildcard, or else 127.0.0.1. In a
	// network of containers, use the name of the server's container.
	Hostnames []string

	// CAFile is the file to write the certificate of the server's certificate authority
	// to. Every user can read it. An existing file is replaced only if it is the
	// certificate of an earlier server. Close removes the file. By default it is in
	// StateDir or in a temporary directory, which other users cannot enter.
	CAFile string
}

// A ConfigError reports an invalid field of [Config].
type ConfigError struct {
	Field string
	Err   error
}

func (e *ConfigError) Error() string { return "Config." + e.Field + ": " + e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// A Server is a running PostgreSQL that checks tokens. Its methods are safe for
// concurrent use.
type Server struct {
	Tenant *Tenant

	config   Config
	listener net.Listener // of the server

	web         *webServer // of the tenant; nil with a Primary
	certificate *certificate
	dir         string // of temporary files
	caFile      string
	upstream    *pgx.ConnConfig // superuser
	protocol    pgwire.Version  // the newest one that PostgreSQL accepts
	cluster     *cluster        // nil with Config.Upstream
	state       *state
	cleanup     []func() error
	roles       *roles
	ctx         context.Context // of all sessions; Close cancels it
	cancel      context.CancelFunc
	sessions    sync.WaitGroup

	faults currentFaults

	mu     sync.Mutex // guards the following
	logins []Login
	open   map[io.Closer]struct{}

	closing  sync.Once
	closeErr error
}

// Start starts a server. ctx bounds only Start itself: the server runs until
// [Server.Close]. If the process exits or is killed without calling Close, the throwaway
// PostgreSQL and its files are removed too, except on Windows.
//
// Without Config.Upstream, Start searches for PostgreSQL's programs in the directory
// that ENTRAPG_POSTGRES_BIN names, then in PATH, and then in the usual directories of
// Debian, Red Hat, Homebrew, Postgres.app and the Windows installer, the newest version
// first. If it finds none, the error says how to install them. If this process runs as
// root, they run as the user postgres or nobody, because PostgreSQL does not run as root.
//
// The PG* variables and the service of this process do not change the throwaway
// PostgreSQL. Its files are in a temporary directory: see [os.TempDir].
func Start(ctx context.Context, config Config) (_ *Server, err error) {
	if config.TokenLife <= 0 {
		config.TokenLife = time.Hour
	}
	if config.Audience == "" {
		config.Audience = "https://ossrdbms-aad.database.windows.net"
	}
	for _, addr := range []*string{&config.Addr, &config.TenantAddr, &config.IdentityAddr} {
		if *addr == "" {
			*addr = "127.0.0.1:0"
		}
	}
	if err := hostnames(config.Hostnames).check(); err != nil {
		return nil, fmt.Errorf("entrapgtest: %w", &ConfigError{Field: "Hostnames", Err: err})
	}
	s := &Server{
		config: config,
		roles:  newRoles(),
		open:   map[io.Closer]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			s.cancel()
			err = errors.Join(fmt.Errorf("entrapgtest: %w", err), s.release())
		}
	}()
	if config.Upstream != "" {
		if s.upstream, err = pgx.ParseConfig(config.Upstream); err != nil {
			return nil, &ConfigError{Field: "Upstream", Err: err}
		}
	}
	var primary *cluster
	if p := config.Primary; p != nil {
		if primary = p.cluster; primary == nil || config.Upstream != "" || config.StateDir != "" {
			return nil, &ConfigError{
				Field: "Primary",
				Err:   errors.New("not used with Upstream or StateDir, or with a primary that has an Upstream"),
			}
		}
		s.Tenant, s.roles = p.Tenant, p.roles
	}
	open := func(field, addr string) (net.Listener, error) {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, &ConfigError{Field: field, Err: err}
		}
		s.cleanup = append(s.cleanup, func() error {
			l.Close() // again after Close
			return nil
		})
		return l, nil
	}
	if s.listener, err = open("Addr", config.Addr); err != nil {
		return nil, err
	}
	listeners := []net.Listener{s.listener}
	var entra, identity net.Listener
	if config.Primary == nil { // otherwise the primary's tenant has them
		if entra, err = open("TenantAddr", config.TenantAddr); err != nil {
			return nil, err
		}
		if identity, err = open("IdentityAddr", config.IdentityAddr); err != nil {
			return nil, err
		}
		listeners = append(listeners, entra)
	}
	if s.state, err = openState(ctx, config.StateDir); err != nil {
		return nil, &ConfigError{Field: "StateDir", Err: err}
	}
	s.cleanup = append(s.cleanup, s.state.close)
	if config.CAFile != "" {
		if s.caFile, err = filepath.Abs(config.CAFile); err != nil {
			return nil, &ConfigError{Field: "CAFile", Err: err}
		}
		remove, err := s.state.authority.publish(s.caFile)
		if err != nil {
			return nil, &ConfigError{Field: "CAFile", Err: err}
		}
		s.cleanup = append(s.cleanup, remove)
	}
	if s.certificate, err = newCertificate(s.state.authority, hostnames(config.Hostnames).with(listeners...)); err != nil {
		return nil, err
	}
	if config.Primary == nil {
		s.web = newWebServer(entra, identity, config.Hostnames, s.certificate)
		s.Tenant = newTenant(s.state, config.TokenLife, s.web.site())
		s.roles.key = s.state.Seed.derive("roles")
		s.cleanup = append(s.cleanup, s.Tenant.arcKeys.close)
	}
	dir := ""
	if s.upstream == nil {
		if s.cluster, err = startCluster(ctx, s.state, primary); err != nil {
			return nil, err
		}
		s.cleanup = append(s.cleanup, s.cluster.stop)
		dir = s.cluster.dir
		if s.upstream, err = pgx.ParseConfig(s.cluster.dsn); err != nil {
			return nil, err
		}
	} else {
		temp, err := newTempDir(os.TempDir())
		if err != nil {
			return nil, err
		}
		s.cleanup = append(s.cleanup, temp.remove)
		dir = temp.path
	}
	if s.protocol, err = s.newestProtocol(ctx); err != nil {
		if config.Upstream != "" {
			err = &ConfigError{Field: "Upstream", Err: err}
		}
		return nil, err
	}
	s.dir = dir
	if s.state.dir != "" {
		dir = s.state.dir
	}
	if s.caFile == "" {
		s.caFile = filepath.Join(dir, "ca.pem")
		if err := writeFile(s.caFile, s.state.authority.pem(), 0o644); err != nil {
			return nil, err
		}
	}
	if s.web != nil {
		s.web.serve(s.ctx, s.Tenant)
	}
	if (config.GroupSync || config.StateDir != "") && config.Primary == nil { // the data can have labels already
		if err := s.provision(ctx); err != nil {
			return nil, err
		}
	}
	if config.GroupSync && config.Primary == nil {
		s.sessions.Go(s.syncGroups)
	}
	s.sessions.Go(s.serve)
	return s, nil
}

// release undoes the steps of Start in reverse order.
func (s *Server) release() error {
	var errs []error
	for _, undo := range slices.Backward(s.cleanup) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// Wait returns an error as soon as the throwaway PostgreSQL exits without being stopped.
// It returns nil after Close, and ctx's error if ctx is canceled first. It does not
// monitor the PostgreSQL of Config.Upstream.
func (s *Server) Wait(ctx context.Context) error {
	var ended chan struct{}
	if s.cluster != nil {
		ended = s.cluster.current().ended
	}
	select {
	case <-ended:
		if s.ctx.Err() != nil {
			return nil
		}
		process := s.cluster.current()
		cause := process.err
		if cause == nil {
			cause = errors.New("it was shut down")
		}
		return fmt.Errorf("entrapgtest: PostgreSQL ended: %w: %s", cause, process.log())
	case <-s.ctx.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends all sessions, stops the throwaway PostgreSQL and removes its files. A
// second call does nothing and returns the result of the first one.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.cancel()
		s.listener.Close()
		s.mu.Lock()
		for c := range s.open {
			c.Close()
		}
		s.mu.Unlock()
		s.sessions.Wait()
		if s.web != nil {
			s.web.close()
		}
		s.closeErr = s.release()
	})
	return s.closeErr
}

// Restart stops the throwaway PostgreSQL, which ends all sessions, and starts it again
// with its data and at the same address. If its processes were killed, Restart only
// starts it. It returns when PostgreSQL accepts connections. Until then, logins fail with
// PostgreSQL's error or SQLSTATE 08006. Restart returns an error with Config.Upstream,
// and after Close.
func (s *Server) Restart(ctx context.Context) error {
	if s.cluster == nil {
		return errors.New("entrapgtest: restart: not used with Config.Upstream; restart that PostgreSQL yourself")
	}
	if s.ctx.Err() != nil {
		return errors.New("entrapgtest: restart: the server is closed")
	}
	if err := s.cluster.restart(ctx); err != nil {
		return fmt.Errorf("entrapgtest: restart: %w", err)
	}
	return nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// CAFile returns the file with the certificate of the server's certificate authority.
func (s *Server) CAFile() string { return s.caFile }

// AdminDSN returns the DSN, with the password, of a superuser on the real PostgreSQL
// behind the front. Use it to create tables and test data.
func (s *Server) AdminDSN() string {
	c := s.upstream
	if s.config.Upstream != "" {
		return s.config.Upstream
	}
	return c.ConnString()
}

// CreateRole maps a role to a principal, as pgaadauth_create_principal_with_oid does. It
// creates the role if it does not exist. An empty role means the principal's name.
func (s *Server) CreateRole(ctx context.Context, role string, p *Principal) error {
	return s.createRole(ctx, role, p, false)
}

func (s *Server) createRole(ctx context.Context, role string, p *Principal, admin bool) error {
	if p == nil || p.tenant != s.Tenant {
		return errors.New("entrapgtest: the principal must be in this server's tenant")
	}
	if role == "" {
		role = p.Name
	}
	switch {
	case role == "" || len(role) > 63 || strings.IndexByte(role, 0) >= 0:
		return fmt.Errorf("entrapgtest: invalid role %q: PostgreSQL's names have 1 to 63 bytes and no NUL", role)
	case role == s.upstream.User:
		return fmt.Errorf("entrapgtest: role %q is the superuser that this server itself uses; choose another role", role)
	}
	name := pgx.Identifier{role}.Sanitize()
	if err := s.exec(ctx, "create role "+name); err != nil && !hasCode(err, duplicateObject) {
		return fmt.Errorf("entrapgtest: %w", err)
	}
	rights := ""
	if admin {
		rights = " createrole createdb; grant azure_pg_admin to " + name
	}
	secret, err := verifier(s.roles.password(role))
	if err != nil {
		return fmt.Errorf("entrapgtest: %w", err)
	}
	// Concurrent grants by servers that share a PostgreSQL fail without the lock.
	if err := s.exec(ctx,
		advisoryLock+"alter role "+name+" login password '"+secret+"'"+rights); err != nil {
		return fmt.Errorf("entrapgtest: %w", err)
	}
	m := mapping{objectID: p.ObjectID, objectType: p.Kind.objectType(), admin: admin}
	if provisioned := s.roles.add(role, m); !provisioned {
		return nil
	}
	err = s.inDatabase(ctx, "postgres", func(conn *pgx.Conn) error {
		if err := s.writePrincipals(ctx, conn); err != nil {
			return err
		}
		return s.label(ctx, conn, role, m)
	})
	if err != nil {
		return fmt.Errorf("entrapgtest: %w", err)
	}
	return nil
}

// newestProtocol returns the newest version of the protocol that PostgreSQL
// accepts.
func (s *Server) newestProtocol(ctx context.Context) (pgwire.Version, error) {
	conn, err := pgx.ConnectConfig(ctx, s.upstream)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	major := 0
	if _, err := fmt.Sscanf(conn.PgConn().ParameterStatus("server_version"), "%d", &major); err != nil {
		return 0, fmt.Errorf("server_version: %w", err)
	}
	if major >= 18 {
		return pgwire.Version32, nil
	}
	return pgwire.Version30, nil
}

// exec runs statements as superuser.
func (s *Server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.ConnectConfig(ctx, s.upstream)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// A Login is the server's record of one attempt to log in.
type Login struct {
	Time        time.Time
	User        string // the requested role
	Database    string
	Application string // application_name
	TLS         bool
	Accepted    bool
	Code        string // SQLSTATE of the rejection
	Message     string // of the rejection, as sent to the client
	Reason      string // explains the result in more detail; never contains a token
}

// keptLogins is how many of the newest attempts are kept at least.
const keptLogins = 10_000

// Logins returns the attempts to log in, the oldest first: at least the newest ten
// thousand. An attempt is recorded before its client gets the result. PostgreSQL itself
// authenticates a role that is not mapped. Such an attempt is recorded as not accepted,
// and its Reason says so.
func (s *Server) Logins() []Login {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.logins)
}

func (s *Server) record(l Login) {
	s.mu.Lock()
	if len(s.logins) >= 2*keptLogins {
		s.logins = slices.Delete(s.logins, 0, keptLogins)
	}
	s.logins = append(s.logins, l)
	s.mu.Unlock()
	if s.config.OnLogin != nil {
		s.config.OnLogin(l)
	}
}
