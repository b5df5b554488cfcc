package entrapg

import (
	"cmp"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg/internal/claims"
	"github.com/entrapg/entrapg/internal/connstring"
)

// connectTimeout is the default of connect_timeout. database/sql opens
// connections without a deadline, and a server can accept a connection and then
// send nothing.
const connectTimeout = 30 * time.Second

// A config is a validated DSN, or existing configuration, with the options applied.
type config struct {
	pgx           *pgx.ConnConfig // without password, and without user if it is derived from the token
	settings      connstring.Settings
	keys          map[string]string // the DSN's keys that entrapg handles itself
	tls           tlsPolicy
	verifications verifications // InsecureSkipVerify configurations that the policy has created
	hostaddr      addresses
	password      func() string // with entra_credential=none, otherwise nil; a function so that no dump shows the password
	stdlib        []stdlib.OptionOpenDB

	noHost   bool // no host is set, so the host is pgx's default
	emptyDSN bool

	// credential and identity determine which tokens log in.
	credential *credentialSource
	identity   identityKey
}

// apply applies the options and the rules for TLS. If shared is true, connectors whose
// DSNs select the same credential share it.
func (c *config) apply(o *options, shared bool) error {
	c.stdlib = o.stdlib
	parsed, password := c.pgx.Config, c.pgx.Password
	for _, adjust := range o.adjust {
		adjust(c.pgx)
	}
	if c.pgx.DialFunc == nil || c.pgx.LookupFunc == nil || c.pgx.BuildFrontend == nil ||
		slices.Contains(c.pgx.Fallbacks, nil) {
		setting := "config"
		if len(o.adjust) > 0 {
			setting = "WithConnConfig"
		}
		return &ConfigError{
			Setting: setting,
			Problem: "DialFunc, LookupFunc, BuildFrontend and fallbacks must not be nil",
		}
	}
	if c.pgx.Password != password {
		return &ConfigError{Setting: "WithConnConfig", Problem: "must not set Password, which is the token; " +
			"a PostgreSQL password belongs in the DSN, with entra_credential=none"}
	}
	c.pgx.Password = ""
	c.dropReplacedSettings(&parsed)
	if err := c.checkSpace(); err != nil {
		return withOrigin(err, c.settings)
	}
	if err := c.checkUser(); err != nil {
		return err
	}
	for host, t := range endpoints(&c.pgx.Config) {
		if t != nil && t.ServerName == "" {
			c.tls.derived = append(c.tls.derived, host)
		}
	}
	if err := c.checkHostIsSet(); err != nil {
		return err
	}
	if err := c.tls.apply(&c.pgx.Config); err != nil {
		return withOrigin(err, c.settings)
	}
	c.verifications = verificationsOf(&c.pgx.Config)
	c.pgx.LookupFunc = boundedLookup(c.hostaddr.lookup(c.pgx.LookupFunc), c.pgx.ConnectTimeout)
	if c.tls.noEntra {
		c.password = func() string { return password }
		_, err := chooseCredential(c.keys, o, publicService)
		return withOrigin(err, c.settings)
	}
	return withOrigin(c.chooseIdentity(o, shared), c.settings)
}

// dropReplacedSettings removes the settings that the program has replaced in the
// parsed configuration. Errors must not report the origin of such a setting.
func (c *config) dropReplacedSettings(parsed *pgconn.Config) {
	for key, replaced := range map[string]bool{
		"user":            c.pgx.User != parsed.User,
		"host":            !slices.Equal(hosts(&c.pgx.Config), hosts(parsed)),
		"sslmode":         c.pgx.TLSConfig == nil && parsed.TLSConfig != nil,
		"channel_binding": c.pgx.ChannelBinding != parsed.ChannelBinding,
		"require_auth":    c.pgx.RequireAuth != parsed.RequireAuth,
	} {
		if replaced {
			delete(c.settings, key)
			c.noHost = c.noHost && key != "host"
		}
	}
}

// checkSpace returns an error if the user or the database begins or ends with white
// space, as values that come from a file often do. A space in the DSN must be escaped,
// so it is intended.
func (c *config) checkSpace() error {
	for _, setting := range []struct{ key, value string }{{"user", c.pgx.User}, {"dbname", c.pgx.Database}} {
		space := "\t\r\n"
		if c.settings.OriginOutsideDSN(setting.key) != "" {
			space += " "
		}
		if strings.Trim(setting.value, space) != setting.value {
			return &ConfigError{
				Setting: setting.key,
				Problem: fmt.Sprintf("%q begins or ends with white space; remove it", setting.value),
			}
		}
	}
	return nil
}

// checkUser returns an error if no role can have the user's name, or if no user is
// set and there is no token to derive one from.
func (c *config) checkUser() error {
	if c.pgx.User == "" {
		if c.tls.noEntra {
			return &UsernameError{Problem: "with entra_credential=none there is no token to derive it from"}
		}
		return nil
	}
	err := claims.UsableName(c.pgx.User)
	if err == nil {
		return nil
	}
	subject := "the user"
	if origin := c.settings.OriginOutsideDSN("user"); origin != "" {
		subject += " from " + origin
	}
	return &UsernameError{Problem: subject + " cannot be the name of a role", Err: err}
}

// checkHostIsSet returns an error if no host is set, unless pgx's default may be used.
func (c *config) checkHostIsSet() error {
	switch {
	case !c.noHost:
		return nil
	case c.emptyDSN:
		return &ConfigError{
			Setting: "dsn",
			Problem: "no host is set, because the DSN and PGHOST are empty; set the variable that holds the DSN",
		}
	case isSocket(c.pgx.Host) && c.tls.sslmode != "disable" && !c.tls.noEntra:
		return &ConfigError{
			Setting: "host",
			Problem: "no host is set; set host or PGHOST to the server's name, " +
				"or sslmode=disable to use the local Unix socket",
		}
	}
	return nil
}

// chooseIdentity sets the credential that provides the tokens, and the key by which
// connectors share it.
func (c *config) chooseIdentity(o *options, shared bool) error {
	azure, err := commonService(hosts(&c.pgx.Config))
	if err != nil {
		return err
	}
	choice, err := chooseCredential(c.keys, o, azure)
	if err != nil {
		return err
	}
	if c.keys[keyScope] == "" && o.scope == "" {
		c.tls.service = azure
	}
	c.identity = identityKey{scope: cmp.Or(c.keys[keyScope], o.scope, azure.scope), management: azure.management}
	c.credential = choice.source(defaultDial)
	switch {
	case o.credential != nil:
		c.credential = sourceOf(o.credential)
		if reflect.ValueOf(o.credential).Comparable() {
			c.identity.credential = o.credential
		}
	case shared:
		c.identity.credential = choice
	}
	return nil
}

// readSettings applies c.settings and entrapg's own keys. It returns the dialer
// that they need, or nil.
func (c *config) readSettings(dsn, sslmode string) (dialer *net.Dialer, err error) {
	if c.settings.Value("connect_timeout") == "" && c.pgx.ConnectTimeout == 0 {
		c.pgx.ConnectTimeout = connectTimeout
	}
	delete(c.settings, "password")
	delete(c.settings, "sslpassword")
	if c.keys, err = takeKeys(c.pgx); err != nil {
		return nil, err
	}
	if dialer, err = takeParameters(c.pgx); err != nil {
		return nil, err
	}
	kind := defaultKind
	if name, ok := c.keys[keyCredential]; ok {
		if kind, err = parseCredentialKind(name); err != nil {
			return nil, err
		}
	}
	c.tls = tlsPolicy{
		sslmode: sslmode, hostaddr: c.hostaddr, sni: c.settings.Value("sslsni") != "0",
		noEntra: kind == noneKind,
	}
	if c.tls.noEntra {
		return dialer, nil
	}
	if connstring.InDSN(dsn).Value("password") != "" {
		return nil, passwordError("password")
	}
	c.pgx.Password = "" // from PGPASSWORD, a service file, a passfile or the program
	return dialer, nil
}
