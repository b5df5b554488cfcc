package entrapgtest

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// hostnames are the names and IP addresses of Config.Hostnames.
type hostnames []string

// check returns an error if a name is invalid.
func (h hostnames) check() error {
	for _, name := range h {
		if net.ParseIP(name) == nil && (len(name) > 253 || !hostName.MatchString(name)) {
			return fmt.Errorf("%q is neither a host name nor an IP address", name)
		}
	}
	return nil
}

// address returns the address that clients are directed to for a listener.
func (h hostnames) address(l net.Listener) string {
	if host, port, _ := net.SplitHostPort(l.Addr().String()); net.ParseIP(host).IsUnspecified() {
		for _, name := range h {
			if !strings.HasPrefix(name, "*") {
				return net.JoinHostPort(name, port)
			}
		}
	}
	return localAddr(l)
}

// with returns the names and addresses that clients can use for the listeners.
func (h hostnames) with(listeners ...net.Listener) []string {
	hosts := slices.Clone(h)
	for _, l := range listeners {
		if host, _, _ := net.SplitHostPort(l.Addr().String()); !net.ParseIP(host).IsUnspecified() {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// hostName matches names that certificates can contain. They can include an underscore,
// which Compose allows in the names of services.
var hostName = regexp.MustCompile(
	`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

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
