package entrapg

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// transportRules are what a login may travel on.
type transportRules struct {
	sslmode  string // in force
	password bool   // with entra_credential=none, what travels is a password of PostgreSQL's own
}

// apply has a configuration send a token by safe roads alone, or says why it cannot.
func (r transportRules) apply(config *pgconn.Config) error {
	if !r.password {
		if err := requireToken(config); err != nil {
			return err
		}
	}
	return r.secure(config)
}

// secure sees to it that a token sent to any of the configured hosts is sent
// to that host alone. It verifies servers where the rules ask for it and
// refuses what cannot be made safe. It runs last, so that no adjustment of the
// configuration undoes it by accident.
func (r transportRules) secure(config *pgconn.Config) error {
	if !r.password && (r.sslmode == "prefer" || r.sslmode == "allow") {
		return &ConfigError{Setting: "sslmode", Problem: fmt.Sprintf("sslmode=%s can fall back to plaintext, which would show the token to the network: use verify-full, or leave sslmode out", r.sslmode)}
	}
	var err error
	if config.TLSConfig, err = r.secureHost(config.Host, config.TLSConfig); err != nil {
		return err
	}
	fallbacks := make([]*pgconn.FallbackConfig, len(config.Fallbacks))
	for i, f := range config.Fallbacks {
		secured := *f
		if secured.TLSConfig, err = r.secureHost(f.Host, f.TLSConfig); err != nil {
			return err
		}
		fallbacks[i] = &secured
	}
	config.Fallbacks = fallbacks
	return nil
}

func (r transportRules) secureHost(host string, config *tls.Config) (*tls.Config, error) {
	if config == nil {
		return nil, r.plaintextAllowed(host)
	}
	config = config.Clone()
	switch {
	case cloudOf(host) != nil:
		// Even under sslmode=require, which Azure's portal suggests: these
		// servers' certificates verify against public roots.
		config.InsecureSkipVerify = false
		config.ServerName = host
	case r.sslmode == "verify-full",
		r.sslmode == "verify-ca" && config.VerifyPeerCertificate == nil && config.VerifyConnection == nil:
		config.InsecureSkipVerify = false
	}
	if config.ServerName == "" && !config.InsecureSkipVerify {
		config.ServerName = host
	}
	return config, nil
}

func (r transportRules) plaintextAllowed(host string) error {
	switch {
	case r.password && cloudOf(host) == nil:
		return nil
	case r.password:
		return &ConfigError{Setting: "sslmode", Problem: fmt.Sprintf("the password would go to host %s in plaintext: use verify-full, or leave sslmode out", host)}
	case !isLocal(host):
		return &ConfigError{Setting: "sslmode", Problem: fmt.Sprintf("the token would go to host %s in plaintext: sslmode=disable is for loopback and Unix sockets only, use verify-full, or leave sslmode out", host)}
	case r.sslmode == "disable":
		return nil
	case isSocket(host):
		return &ConfigError{Setting: "host", Problem: fmt.Sprintf("host %s is a Unix socket, which has no TLS: set host to your server's name, or sslmode=disable if the socket is meant", host)}
	default:
		return &ConfigError{Setting: "sslmode", Problem: fmt.Sprintf("host %s has no TLS configuration, and the token does not go out in plaintext: set sslmode=disable if a server on this machine is meant", host)}
	}
}

// tokenMethods are the ways in which a token is sent, inside TLS: as a cleartext
// password, which is Azure's, and by OAUTHBEARER, which PostgreSQL 18 has. Who asks
// for another one is not the server, or the role is not mapped; neither gets a hash
// of the token, nor queries without it.
const tokenMethods = "password,oauth"

// requireToken has pgx answer to tokenMethods alone, and refuses settings that
// forbid all of them.
func requireToken(config *pgconn.Config) error {
	if config.ChannelBinding == "require" {
		return &ConfigError{Setting: "channel_binding", Problem: "channel_binding=require is for SCRAM, and a token is sent as a cleartext password inside TLS: leave it out"}
	}
	if config.RequireAuth == "" {
		config.RequireAuth = tokenMethods
		return nil
	}
	methods := strings.Split(config.RequireAuth, ",")
	for i := range methods {
		methods[i] = strings.TrimSpace(methods[i])
	}
	negated := strings.HasPrefix(methods[0], "!")
	for _, method := range strings.Split(tokenMethods, ",") {
		if negated && !slices.Contains(methods, "!"+method) || !negated && slices.Contains(methods, method) {
			return nil
		}
	}
	return &ConfigError{Setting: "require_auth", Problem: "it forbids password and oauth, which is how a token is sent: use require_auth=" + tokenMethods + ", or leave it out"}
}

// isLocal reports whether packets to host stay on this machine.
func isLocal(host string) bool {
	if isSocket(host) || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func isSocket(host string) bool {
	network, _ := pgconn.NetworkAddress(host, 0)
	return network == "unix"
}
