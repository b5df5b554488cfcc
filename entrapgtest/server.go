package entrapgtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// A Server is a running PostgreSQL that checks tokens. It accepts only connections with
// TLS. Its methods are safe for concurrent use.
type Server struct {
	Tenant *Tenant // whose tokens the server accepts; the primary's with Config.Primary

	config         Config
	front          *front
	web            *webServer // of the tenant; nil with a Primary
	administration *administration
	backend        *backend
	cluster        *cluster // nil with Config.Upstream
	caFile         string
	tempDir        string

	ctx        context.Context // of all sessions; Close cancels it
	cancel     context.CancelFunc
	background sync.WaitGroup
	cleanup    []func() error // undoes the steps of Start

	closing  sync.Once
	closeErr error
}

// Start starts a server. ctx bounds only Start itself: the server runs until
// [Server.Close]. If the process exits or is killed without calling Close, the throwaway
// PostgreSQL and its files are removed too, except on Windows. If a field of config is
// invalid or cannot be used, the error is a [*ConfigError].
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
	config.setDefaults()
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("entrapgtest: %w", err)
	}
	s := &Server{config: config}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			s.cancel()
			err = errors.Join(fmt.Errorf("entrapgtest: %w", err), s.release())
		}
	}()

	l, err := openListeners(ctx, config)
	if err != nil {
		return nil, err
	}
	s.cleanup = append(s.cleanup, l.close)
	st, err := openState(ctx, config.StateDir)
	if err != nil {
		return nil, &ConfigError{Field: "StateDir", Err: err}
	}
	s.cleanup = append(s.cleanup, st.close)
	if config.CAFile != "" {
		if err := s.publish(st.authority); err != nil {
			return nil, &ConfigError{Field: "CAFile", Err: err}
		}
	}
	cert, err := newCertificate(st.authority, hostnames(config.Hostnames).with(l.encrypted()...))
	if err != nil {
		return nil, err
	}

	shared := s.openTenant(st, l, cert)
	if err := s.startBackend(ctx, st, shared); err != nil {
		return nil, err
	}
	if s.caFile == "" {
		s.caFile = filepath.Join(cmp.Or(st.dir, s.tempDir), "ca.pem")
		if err := writeFile(s.caFile, st.authority.pem(), 0o644); err != nil {
			return nil, err
		}
	}
	s.administration = &administration{
		tenant: s.Tenant, backend: s.backend, roles: shared,
		groupSync: config.GroupSync, throwaway: s.cluster != nil,
	}
	s.front = &front{
		listener: l.server, tls: cert.tls, method: s.loginMethod(),
		judge:          judge{tokens: &s.Tenant.tokens, audience: config.Audience},
		administration: s.administration, backend: s.backend, log: loginLog{onLogin: config.OnLogin}, ctx: s.ctx,
	}

	if s.web != nil {
		s.web.serve(s.ctx, s.Tenant)
		if config.GroupSync || config.StateDir != "" { // the data can have labels already
			if err := s.administration.provision(ctx); err != nil {
				return nil, err
			}
		}
		if config.GroupSync {
			s.background.Go(func() { s.administration.keepGroupsInSync(s.ctx) })
		}
	}
	s.front.sessions.Go(s.front.serve)
	return s, nil
}

// openTenant sets the server's tenant, and the web server of a new one. It returns the
// roles.
func (s *Server) openTenant(st *state, l *listeners, c *certificate) *roles {
	if p := s.config.Primary; p != nil {
		s.Tenant = p.Tenant
		return p.administration.roles
	}
	s.web = newWebServer(l.entra, l.identity, s.config.Hostnames, c)
	s.Tenant = newTenant(st, s.config.TokenLife, s.web.site())
	s.cleanup = append(s.cleanup, s.Tenant.arcKeys.close)
	return newRoles(st.Seed.derive("roles"))
}

// publish writes Config.CAFile.
func (s *Server) publish(a *authority) error {
	path, err := filepath.Abs(s.config.CAFile)
	if err != nil {
		return err
	}
	remove, err := a.publish(path)
	if err != nil {
		return err
	}
	s.caFile, s.cleanup = path, append(s.cleanup, remove)
	return nil
}

// startBackend connects to Config.Upstream, or starts a throwaway PostgreSQL.
func (s *Server) startBackend(ctx context.Context, st *state, shared *roles) (err error) {
	if s.config.Upstream != "" {
		dir, err := newTempDir(os.TempDir())
		if err != nil {
			return err
		}
		s.cleanup = append(s.cleanup, dir.remove)
		s.tempDir = dir.path
		if s.backend, err = newBackend(ctx, s.config.Upstream, shared, nil); err != nil {
			return &ConfigError{Field: "Upstream", Err: err}
		}
		return nil
	}
	var source *cluster
	var primary *backend
	if p := s.config.Primary; p != nil {
		source, primary = p.cluster, p.backend
	}
	if s.cluster, err = startCluster(ctx, st, source); err != nil {
		return err
	}
	s.cleanup = append(s.cleanup, s.cluster.stop)
	s.tempDir = s.cluster.dir
	s.backend, err = newBackend(ctx, s.cluster.dsn, shared, primary)
	return err
}

// loginMethod returns how clients send their tokens.
func (s *Server) loginMethod() loginMethod {
	if !s.config.OAuth {
		return passwordMethod{}
	}
	return bearerMethod{
		scope:     s.config.Audience + "/.default",
		discovery: s.Tenant.URL() + "/" + s.Tenant.ID + "/v2.0/.well-known/openid-configuration",
	}
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
// It returns nil after Close, and ctx.Err() if ctx is done first. It does not monitor the
// PostgreSQL of Config.Upstream.
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

// Close ends all sessions, stops the throwaway PostgreSQL and removes its files, except
// those in Config.StateDir. It returns an error if the PostgreSQL does not stop cleanly or
// if files remain. A second call does nothing and returns the result of the first one.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.cancel()
		s.front.close()
		s.background.Wait()
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

// Addr returns the address that the server listens on, IP:PORT.
func (s *Server) Addr() string { return s.front.listener.Addr().String() }

// CAFile returns the path of a PEM file with the certificate of the server's certificate
// authority.
func (s *Server) CAFile() string { return s.caFile }

// DSN returns a URL to connect with: the address, the database postgres,
// sslmode=verify-full and the file of the certificate authority. It has no user and
// no password.
//
// Each argument changes one setting: "dbname=shop" sets a value, which DSN escapes, and
// "sslrootcert" without a value removes the setting. The PG* variables and the service of
// the calling process do not change a connection: the URL contains the default value of
// each setting that they change. For PGUSER that is an empty user: package entrapg then
// uses the user that the token identifies.
func (s *Server) DSN(settings ...string) string {
	fixed := []setting{{"dbname", "postgres"}, {"sslmode", "verify-full"}, {"sslrootcert", s.caFile}}
	if os.Getenv("PGHOSTADDR") != "" {
		fixed = append(fixed, setting{"hostaddr", ""}) // for entrapg and libpq; newClient removes what pgx alone makes of it
	}
	address := hostnames(s.config.Hostnames).address(s.front.listener)
	return connectionURL(address, append(fixed, defaults(s.tempDir)...), settings)
}

// AdminDSN returns the DSN of a superuser, with the password. It connects directly to the
// real PostgreSQL, which checks no tokens. Use it to create tables and test data.
func (s *Server) AdminDSN() string { return s.backend.config.ConnString() }

// CreateRole maps a role to a principal, as pgaadauth_create_principal_with_oid does. It
// creates the role if it does not exist. An empty role means the principal's name. The
// principal must be of the server's tenant. CreateRole returns an error if the name of the
// role is longer than 63 bytes, contains NUL, or is the name of the superuser in AdminDSN.
func (s *Server) CreateRole(ctx context.Context, role string, p *Principal) error {
	return wrap(s.administration.createRole(ctx, role, p, false))
}

// CreateAdmin maps a role as [Server.CreateRole] does, and makes it an Entra
// administrator. The first call installs Azure's functions in the database postgres:
// pgaadauth_create_principal, pgaadauth_create_principal_with_oid,
// pgaadauth_update_principal_with_oid, pgaadauth_list_principals and
// pgaadauth_sync_roles_for_group_members (see Config.GroupSync). Administrators can
// also map existing roles in every database, with SECURITY LABEL for "pgaadauth".
// The functions know all principals of the tenant at the time of the call.
//
// Administrators can create roles and databases. They cannot run programs or read and
// write files as the operating system user that runs PostgreSQL. On PostgreSQL 14 and
// 15, a role that can create roles can grant any other role. There, the first call
// removes pg_execute_server_program, pg_read_server_files, pg_write_server_files,
// pg_read_all_data and pg_write_all_data, except with Config.Upstream.
func (s *Server) CreateAdmin(ctx context.Context, role string, p *Principal) error {
	return wrap(s.administration.createAdmin(ctx, role, p))
}

// SyncGroups creates roles for the members of groups that have a role. Without
// Config.GroupSync, it returns an error. Azure, and this server, also do that every 30 minutes and when an
// administrator calls pgaadauth_sync_roles_for_group_members.
func (s *Server) SyncGroups(ctx context.Context) error {
	return wrap(s.administration.syncGroups(ctx))
}

// SetFaults replaces the current faults. They affect token requests and connections that
// begin afterwards. A server and its Config.Primary share the faults of the tenant.
func (s *Server) SetFaults(f Faults) {
	s.Tenant.tokens.faults.set(f)
	s.front.faults.set(f)
}

// RevokeTokens makes the server, and all others that use the tenant, reject every token
// that has been issued so far. Sessions continue. It returns an error if it cannot create a
// new signing key.
func (s *Server) RevokeTokens() error { return s.Tenant.tokens.rotate() }

// Logins returns the attempts to log in, the oldest first: at least the newest ten
// thousand. An attempt is recorded before its client gets the result. It is not recorded if
// the client disconnects before that, or if the connection is cut before the startup
// message. PostgreSQL itself authenticates a role that is not mapped. Such an attempt is
// recorded as not accepted, and its Reason contains the explanation.
func (s *Server) Logins() []Login { return s.front.log.all() }

// wrap adds the package's name to an error.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("entrapgtest: %w", err)
}
