package entrapgtest

import (
	"net"
	"regexp"
	"strings"
)

// reachable returns the address that clients are directed to for a listener.
func (s *Server) reachable(l net.Listener) string {
	if host, port, _ := net.SplitHostPort(l.Addr().String()); net.ParseIP(host).IsUnspecified() {
		for _, name := range s.config.Hostnames {
			if !strings.HasPrefix(name, "*") {
				return net.JoinHostPort(name, port)
			}
		}
	}
	return localAddr(l)
}

// localAddr returns the address of a listener within this machine.
func localAddr(l net.Listener) string {
	host, port, _ := net.SplitHostPort(l.Addr().String())
	if net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// httpsURL returns the URL of an address. Some clients, such as MSAL for Node.js, compare
// URLs after removing the port of HTTPS from one of them.
func httpsURL(addr string) string { return "https://" + strings.TrimSuffix(addr, ":443") }

// hosts returns the names and addresses that clients can use for the server.
func (s *Server) hosts() []string {
	hosts := s.config.Hostnames
	for _, l := range []net.Listener{s.listener, s.tenantListener} {
		if l == nil { // with a Primary
			continue
		}
		if host, _, _ := net.SplitHostPort(l.Addr().String()); !net.ParseIP(host).IsUnspecified() {
			hosts = append(hosts[:len(hosts):len(hosts)], host)
		}
	}
	return hosts
}

// hostName matches names that certificates can contain. They can include an underscore,
// which Compose allows in the names of services.
var hostName = regexp.MustCompile(
	`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

func validHost(name string) bool {
	return net.ParseIP(name) != nil || len(name) <= 253 && hostName.MatchString(name)
}
