package entrapg

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// checkHost returns an error unless host is a DNS name, an IP address or the
// path of a Unix socket. Other strings can look like an Azure host to a resolver
// and not to this package, or vice versa.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil || isSocket(host) || len(host) <= 254 && dnsName.MatchString(host) {
		return nil
	}
	return &ConfigError{
		Setting: "host",
		Problem: fmt.Sprintf("%q is not a host name, an IP address or the path of a Unix socket", host),
	}
}

// dnsName matches names whose labels consist of ASCII letters, digits, hyphens,
// and underscores, which container networks allow.
var dnsName = regexp.MustCompile(`^([0-9A-Za-z_-]{1,63}\.)*[0-9A-Za-z_-]{1,63}\.?$`)

// isLocal reports whether a host is this machine, judged by its name only.
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

// isLocalPeer reports whether a peer's address is on this machine. An address without
// an IP address belongs to a Unix socket, or to a connection of the program's own
// dialer, such as a pipe.
func isLocalPeer(addr net.Addr) bool {
	if addr == nil {
		return false
	}
	peer, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return !strings.HasPrefix(addr.Network(), "tcp")
	}
	return peer.Addr().Unmap().IsLoopback()
}
