package entrapg

import (
	"crypto/tls"
	"crypto/x509"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// A verification identifies a TLS configuration with InsecureSkipVerify that the
// policy has created, and which verifies the host by VerifyConnection. It does not point
// to that TLS configuration, which a hook could change.
type verification struct {
	host, serverName string
	roots            *x509.CertPool
}

type verifications []verification

// verificationsOf returns the verifications of a configuration after apply.
func verificationsOf(config *pgconn.Config) verifications {
	var all verifications
	for host, c := range endpoints(config) {
		if c != nil && c.InsecureSkipVerify {
			all = append(all, verification{host, c.ServerName, c.RootCAs})
		}
	}
	return all
}

// contains reports whether the policy has created c for host.
func (v verifications) contains(host string, c *tls.Config) bool {
	return isPolicyFunc(c.VerifyConnection) && slices.Contains(v, verification{host, c.ServerName, c.RootCAs})
}
