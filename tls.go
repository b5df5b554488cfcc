package entrapg

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/internal/inspect"
)

// A tlsPolicy decides on which connections a token may be sent. The package
// documentation describes the rules under Security.
type tlsPolicy struct {
	sslmode  string // in effect
	sni      bool   // sslsni
	noEntra  bool   // entra_credential=none: pgx's rules, except for Azure hosts
	hostaddr addresses

	// authority has the roots of sslrootcert, or is nil if it is not set. Under
	// require and verify-ca, the names of servers outside Azure whose certificates
	// chain to them are not verified, as in libpq.
	authority *x509.CertPool

	// strict are the hosts for which the program has set a TLS configuration that
	// verifies the name.
	strict []string

	// service, if not nil, is the service that determined the token's scope.
	service *azureService

	// derived are the hosts whose ServerName the program has not set. If a hook
	// replaces one, the new host is verified by its own name.
	derived []string
}

// reset clears the fields that apply sets in a configuration that pgx has just
// parsed, so that apply can detect what the program sets later.
func (p tlsPolicy) reset(config *pgconn.Config) {
	for _, c := range endpoints(config) {
		if c != nil {
			c.ServerName = ""
			c.InsecureSkipVerify = false
			c.VerifyPeerCertificate = nil
		}
	}
}

// apply makes a configuration verify servers as the policy requires. It returns a
// ConfigError for a configuration that could expose the token. It replaces the TLS
// configurations and fallbacks that config points to, and does not change them.
func (p tlsPolicy) apply(config *pgconn.Config) error {
	if !p.noEntra {
		if err := requireTokenMethods(config); err != nil {
			return err
		}
		if p.sslmode == "prefer" || p.sslmode == "allow" {
			return &ConfigError{Setting: "sslmode", Problem: p.sslmode + " can fall back to plaintext; " +
				"use verify-full or omit sslmode"}
		}
	}
	var err error
	if config.TLSConfig, err = p.secure(config.Host, config.TLSConfig); err != nil {
		return err
	}
	fallbacks := make([]*pgconn.FallbackConfig, len(config.Fallbacks))
	for i, f := range config.Fallbacks {
		if f == nil {
			return &ConfigError{Setting: "Fallbacks", Problem: "must not contain nil"}
		}
		secured := *f
		if secured.TLSConfig, err = p.secure(f.Host, f.TLSConfig); err != nil {
			return err
		}
		fallbacks[i] = &secured
	}
	config.Fallbacks = fallbacks
	return nil
}

// secure returns the TLS configuration to use for host instead of c, or nil for
// plaintext.
func (p tlsPolicy) secure(host string, c *tls.Config) (*tls.Config, error) {
	if err := checkHost(host); err != nil {
		return nil, err
	}
	switch {
	case c == nil:
		return nil, p.checkPlaintext(host)
	case p.noEntra:
		return p.pgxConfig(host, c), nil
	}
	return p.verifyingConfig(host, c), nil
}

// verifyingConfig returns a TLS configuration that verifies host before a token is sent.
// It honors RootCAs, and a ServerName that the program has set.
//
//go:noinline
func (p tlsPolicy) verifyingConfig(host string, c *tls.Config) *tls.Config {
	c = c.Clone()
	if c.ServerName == "" || slices.Contains(p.derived, c.ServerName) || !mayVerifyAs(host, c.ServerName) {
		c.ServerName = host
	}
	accepts := p.otherNames(host, c)
	c.InsecureSkipVerify = accepts != nil // otherwise Go verifies the chain and ServerName
	if accepts == nil {
		return c
	}
	next, name, roots := c.VerifyConnection, c.ServerName, c.RootCAs
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verifyChain(state.PeerCertificates, roots, name, accepts); err != nil {
			return err
		}
		if next != nil {
			return next(state)
		}
		return nil
	}
	if !p.sni {
		c.ServerName = ""
	}
	return c
}

// otherNames returns a function that reports whether a host may present a certificate
// that is not for ServerName. It returns nil if the certificate must be for ServerName.
func (p tlsPolicy) otherNames(host string, c *tls.Config) func(*x509.Certificate) bool {
	azure := serviceOf(host)
	switch {
	case p.sslmode == "verify-ca" && azure != nil:
		return azure.certifies
	case azure != nil, p.sslmode == "verify-full":
		return nil
	case c.ServerName != host, slices.Contains(p.strict, host): // the program has set it
		return nil
	case c.RootCAs != nil && c.RootCAs.Equal(p.authority):
		return func(*x509.Certificate) bool { return true }
	}
	return certifiesAzure
}

// mayVerifyAs reports whether the certificate of host may be verified against a
// name that the program has set.
func mayVerifyAs(host, name string) bool { return serviceOf(host) == nil || serviceOf(name) != nil }

// verifyChain verifies a certificate chain, and that the certificate is for name
// unless accepts reports true.
func verifyChain(
	chain []*x509.Certificate, roots *x509.CertPool, name string, accepts func(*x509.Certificate) bool,
) error {
	if len(chain) == 0 {
		return errors.New("tls: the server presented no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
	if err == nil && !accepts(chain[0]) {
		err = chain[0].VerifyHostname(name)
	}
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

// pgxConfig returns a TLS configuration for a PostgreSQL password: pgx's own,
// except that Azure hosts are always verified.
func (p tlsPolicy) pgxConfig(host string, c *tls.Config) *tls.Config {
	c = c.Clone()
	switch {
	case serviceOf(host) != nil:
		c.InsecureSkipVerify = false
		c.ServerName = host
	case p.sslmode == "verify-full",
		p.sslmode == "verify-ca" && c.VerifyPeerCertificate == nil && c.VerifyConnection == nil:
		c.InsecureSkipVerify = false
	}
	if c.ServerName == "" && !c.InsecureSkipVerify {
		c.ServerName = host
	}
	return c
}

// checkPlaintext returns an error unless a connection to host may be in plaintext.
func (p tlsPolicy) checkPlaintext(host string) error {
	switch {
	case p.noEntra && serviceOf(host) == nil:
		return nil
	case p.noEntra:
		return &ConfigError{
			Setting: "sslmode",
			Problem: fmt.Sprintf("the password would be sent to Azure host %q in plaintext; "+
				"use verify-full or omit sslmode", host),
		}
	case !isLocal(host) && p.sslmode != "disable":
		return &ConfigError{
			Setting: "sslmode",
			Problem: fmt.Sprintf("host %q has no TLS configuration, and the token is not sent in "+
				"plaintext; put the host in the DSN, or set TLSConfig", host),
		}
	case !isLocal(host):
		return &ConfigError{Setting: "sslmode", Problem: fmt.Sprintf("the token would be sent to host %q in plaintext; "+
			"disable is for loopback and Unix sockets, use verify-full or omit sslmode", host)}
	case p.hostaddr[host] != "" && !isLocal(p.hostaddr[host]):
		return &ConfigError{Setting: "hostaddr", Problem: fmt.Sprintf("the token would be sent to %s in plaintext; "+
			"sslmode=disable is for loopback and Unix sockets, use verify-full or omit sslmode", p.hostaddr[host])}
	case p.sslmode == "disable":
		return nil
	case isSocket(host):
		return &ConfigError{Setting: "host", Problem: fmt.Sprintf("%q is a Unix socket, which has no TLS; "+
			"set host to the server's name, or sslmode=disable to use the socket", host), fix: inspect.Fix{Plaintext: true}}
	}
	return &ConfigError{
		Setting: "sslmode",
		Problem: fmt.Sprintf("host %q has no TLS configuration, and the token is not sent "+
			"in plaintext; set sslmode=disable to use a local server without TLS", host),
		fix: inspect.Fix{Plaintext: true},
	}
}

// check returns a ConfigError if a connection is less safe than the policy requires,
// because a hook or name resolution has changed the result of apply. config contains
// all hosts, because pgx does not tell which one it has dialed. own are the
// verifications that the policy has created in config.
func (p tlsPolicy) check(ctx context.Context, config *pgconn.Config, conn net.Conn, own verifications) error {
	if config.Password != "" {
		return &ConfigError{Setting: "Password", Problem: "must not be set by a BeforeConnect hook"}
	}
	if !p.noEntra {
		if err := requireTokenMethods(config); err != nil {
			return err
		}
	}
	plaintext := false // of any host
	for host, c := range endpoints(config) {
		if err := checkHost(host); err != nil {
			return err
		}
		switch azure := serviceOf(host); {
		case azure != nil && p.service != nil && azure != p.service:
			return &ConfigError{Setting: "host", Problem: fmt.Sprintf("a BeforeConnect hook has set host %q, "+
				"which belongs to another Azure cloud or service than the token; use one connector for each", host)}
		case c == nil:
			plaintext = true
			if err := p.checkPlaintext(host); err != nil {
				return err
			}
		case p.noEntra && serviceOf(host) == nil: // as in pgx
		case c.InsecureSkipVerify && !own.contains(host, c), !c.InsecureSkipVerify && !mayVerifyAs(host, c.ServerName):
			return &ConfigError{
				Setting: "TLSConfig",
				Problem: fmt.Sprintf("a BeforeConnect hook must not change how host %q is verified; "+
					"use WithConnConfig", host),
			}
		}
	}
	if plaintext && !p.noEntra && !isLocalPeer(conn.RemoteAddr()) {
		return checkPeer(ctx, config, conn)
	}
	return nil
}

// checkPeer returns an error unless the server has a certificate for one of the hosts
// with TLS. TLS alone does not show that: a program's DialFunc may use it for a host
// without TLS, and not verify the server.
func checkPeer(ctx context.Context, config *pgconn.Config, conn net.Conn) error {
	for _, c := range endpoints(config) {
		t, ok := conn.(*tls.Conn)
		if c == nil || !ok {
			continue
		}
		if err := t.HandshakeContext(ctx); err != nil { // pgx has not done it yet
			return err
		}
		state, verify := t.ConnectionState(), c.VerifyConnection
		if !c.InsecureSkipVerify {
			verify = func(state tls.ConnectionState) error {
				return verifyChain(state.PeerCertificates, c.RootCAs, c.ServerName, func(*x509.Certificate) bool { return false })
			}
		}
		if verify(state) == nil {
			return nil
		}
	}
	return &ConfigError{Setting: "host", Problem: fmt.Sprintf("the host resolved to %s, which is not on this machine, "+
		"and the token is not sent in plaintext; use sslmode=verify-full or omit sslmode", conn.RemoteAddr())}
}
