package pgfail

import (
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
)

// Network returns the meaning of an error that occurred before a login was tried, and what
// to do, or "" if it is unknown. It does not quote the error.
func Network(err error) string {
	for _, attempt := range Attempts(err) {
		if hint := network(attempt); hint != "" {
			return hint
		}
	}
	return ""
}

func network(err error) string {
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var timeout net.Error
	switch {
	case errors.As(err, &unknown):
		return "this machine does not trust the server's certificate; install the system's root certificates, " +
			"or set sslrootcert to the root of the server's certificate"
	case errors.As(err, &name):
		return "the server's certificate is for another name; set host to the server's own name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the server's certificate is not valid now; check the clock of this machine, or renew the certificate"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the server's name does not exist; check host, and the private DNS zone if the server has a private endpoint"
	case errors.As(err, &dns):
		return "the server's name cannot be resolved now; check the network and the DNS server"
	case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(err.Error(), "actively refused"): // Windows
		return "no server listens on this port; check host and port, and that the server is started"
	case strings.Contains(err.Error(), "server refused TLS connection"): // pgx has no type for it
		return "the server does not support TLS; turn it on, or set sslmode=disable if the server is on this machine"
	case strings.Contains(err.Error(), "server protocol version too low"): // pgx has no type for it
		return "the server does not support the version of the protocol; lower or remove min_protocol_version"
	case errors.As(err, &timeout) && timeout.Timeout() && connected(err):
		return "the server accepted the connection, but the login took too long; allow more time, by connect_timeout " +
			"and the deadline of the context, and check the load of the server"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the server does not answer; allow this machine in the server's firewall, and check the network"
	default:
		return ""
	}
}

// connected reports whether pgx's error is of an established connection.
func connected(err error) bool {
	return slices.ContainsFunc([]string{"tls error: ", "failed to write startup message: ", "failed to receive message: "},
		func(stage string) bool { return strings.Contains(err.Error(), stage) })
}
