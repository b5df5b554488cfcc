package entrapgtest

import (
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// DefaultScope is the scope of tokens that a server accepts unless [Config].Audience is
// set: that of Azure Database for PostgreSQL in the public cloud.
const DefaultScope = "https://ossrdbms-aad.database.windows.net/.default"

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
	// certificate and its own login faults, and must be closed. TokenLife, TenantAddr and
	// IdentityAddr have no effect. Upstream and StateDir must not be set, nor the
	// primary's Upstream. The program pg_basebackup must be installed.
	Primary *Server

	// TokenLife is the lifetime of tokens: an hour by default. Lifetimes of ten seconds and
	// more are rounded down to whole seconds. Over HTTP, the remaining lifetime is always rounded
	// down to whole seconds, so a client considers a token expired in its last second.
	TokenLife time.Duration

	// Audience is the resource that tokens must be for: by default, that of [DefaultScope].
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
	// earlier StateDir. Its permissions become 0700. Only one server at a time can use it.
	// If StateDir is empty, each start creates a new state, and Close removes it.
	StateDir string

	// Addr is the TCP address to listen on, HOST:PORT. The default is "127.0.0.1:0", which
	// selects a free port.
	Addr string

	// TenantAddr is the address of the tenant over HTTPS. Its form and default are those of
	// Addr.
	TenantAddr string

	// IdentityAddr is the address of the managed identity endpoints over plain HTTP. Its
	// form and default are those of Addr.
	IdentityAddr string

	// OnLogin, if set, is called for every attempt to log in that [Server.Logins] returns,
	// before the client gets the result. Several goroutines can call it at the same time.
	OnLogin func(Login)

	// Hostnames are names and IP addresses that the certificate is valid for, besides
	// localhost, the loopback addresses and the addresses that the server listens on. If
	// it listens on all addresses (0.0.0.0 or ::), [Server.DSN], [Tenant.URL] and
	// [Host.Environ] use the first one without a wildcard, or else 127.0.0.1. In a
	// network of containers, use the name of the server's container.
	Hostnames []string

	// CAFile is the file to write the certificate of the server's certificate authority
	// to, in PEM. Every user can read it. An existing file is replaced only if it is the
	// certificate of an earlier server. Close removes the file. By default it is in
	// StateDir or in a temporary directory, which other users cannot enter.
	CAFile string
}

// setDefaults sets the fields for which the zero value means a default.
func (c *Config) setDefaults() {
	if c.TokenLife <= 0 {
		c.TokenLife = time.Hour
	}
	if c.Audience == "" {
		c.Audience = strings.TrimSuffix(DefaultScope, "/.default")
	}
	for _, addr := range []*string{&c.Addr, &c.TenantAddr, &c.IdentityAddr} {
		if *addr == "" {
			*addr = "127.0.0.1:0"
		}
	}
}

// check returns an error for a field that is invalid by itself or with other fields.
func (c *Config) check() error {
	if err := hostnames(c.Hostnames).check(); err != nil {
		return &ConfigError{Field: "Hostnames", Err: err}
	}
	if c.Upstream != "" {
		if _, err := pgx.ParseConfig(c.Upstream); err != nil {
			return &ConfigError{Field: "Upstream", Err: err}
		}
	}
	if c.Primary != nil && (c.Primary.cluster == nil || c.Upstream != "" || c.StateDir != "") {
		return &ConfigError{
			Field: "Primary",
			Err:   errors.New("not used with Upstream or StateDir, or with a primary that has an Upstream"),
		}
	}
	return nil
}

// A ConfigError reports a field of [Config] that is invalid or cannot be used, such as an
// address that is in use.
type ConfigError struct {
	Field string // of Config
	Err   error  // the cause
}

func (e *ConfigError) Error() string { return "Config." + e.Field + ": " + e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }
