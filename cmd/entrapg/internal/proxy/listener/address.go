// Package listener opens the listeners of a server for PostgreSQL clients: TCP
// addresses and Unix sockets.
package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// An Address is an address to listen on. [Parse] creates it.
type Address struct {
	Host string // name or IP address; empty for all interfaces, and for a Unix socket
	Port uint16
	Path string // of a Unix socket; begins with @ if the socket is abstract
}

// Parse reads an address:
//
//	5433 127.0.0.1 127.0.0.1:5433 localhost:5433 [::1]:5433 ::1
//	:5433 *:5433                 all interfaces
//	/run/entrapg                 the Unix socket .s.PGSQL.5432 in the directory
//	/run/entrapg/.s.PGSQL.5433   this Unix socket; a name that ends in .sock is one too
//	@entrapg                     an abstract Unix socket (Linux)
//
// A number alone is a port of 127.0.0.1, and port is the default. The directory
// of a Unix socket is made absolute; Parse does not check whether it exists. A name alone
// that could be a host or an existing directory is an error.
func Parse(text string, port uint16) (Address, error) {
	switch {
	case text == "":
		return Address{}, errors.New("the address is empty; want HOST:PORT, a port or a directory")
	case strings.ContainsRune(text, 0):
		return Address{}, fmt.Errorf("invalid address %q", text)
	case text[0] == '@' || text[0] == '.' || strings.Contains(text, "/") ||
		runtime.GOOS == "windows" && strings.Contains(text, `\`):
		return parsePath(text, port)
	}
	if n, err := strconv.Atoi(text); err == nil {
		return withPort("127.0.0.1", text, n)
	}
	bare := text
	if text[0] == '[' && text[len(text)-1] == ']' {
		bare = text[1 : len(text)-1]
	}
	if ip, ok := parseIP(bare); ok {
		return Address{Host: ip, Port: port}, nil
	}
	if info, err := os.Stat(text); err == nil && info.IsDir() && text != "localhost" && runtime.GOOS != "windows" {
		return Address{}, fmt.Errorf("%q is a directory; write %q for a socket in it, or %q for a host",
			text, "./"+text, net.JoinHostPort(text, strconv.Itoa(int(port))))
	}
	host, number := text, ""
	if strings.Contains(text, ":") {
		var err error
		if host, number, err = net.SplitHostPort(text); err != nil {
			return Address{}, fmt.Errorf("invalid address %q; want HOST:PORT, [IPV6]:PORT, a port or a directory", text)
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			return Address{}, fmt.Errorf("invalid port %q in %q; want a number from 1 to 65535", number, text)
		}
		if _, err := withPort("", text, n); err != nil {
			return Address{}, err
		}
		port = uint16(n)
	}
	if host == "*" {
		host = ""
	}
	if ip, ok := parseIP(host); ok {
		host = ip
	} else if host != "" && strings.ContainsFunc(host, notInName) {
		return Address{}, fmt.Errorf("invalid host %q in %q", host, text)
	}
	return Address{Host: host, Port: port}, nil
}

func parseIP(text string) (string, bool) {
	ip, err := netip.ParseAddr(text)
	return ip.String(), err == nil && !strings.ContainsFunc(ip.Zone(), notInName)
}

func notInName(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	return !letter && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
}

func withPort(host, text string, n int) (Address, error) {
	if n < 0 || n > 65535 {
		return Address{}, fmt.Errorf("invalid port in %q; want a number from 1 to 65535", text)
	}
	return Address{Host: host, Port: uint16(n)}, nil
}

// socketPrefix begins the names of the sockets that libpq looks for.
const socketPrefix = ".s.PGSQL."

func parsePath(text string, port uint16) (Address, error) {
	switch {
	case runtime.GOOS == "windows":
		return Address{}, fmt.Errorf("%q is a Unix socket, which is not supported on Windows; use a port", text)
	case text[0] == '@' && runtime.GOOS != "linux":
		return Address{}, fmt.Errorf("%q is an abstract Unix socket, which only Linux has; use a directory", text)
	case text == "@":
		return Address{}, errors.New(`the abstract Unix socket "@" has no name; use one such as @entrapg`)
	}
	path := text
	if text[0] != '@' {
		var err error
		if path, err = filepath.Abs(text); err != nil {
			return Address{}, err
		}
	}
	name := filepath.Base(path)
	switch {
	case strings.HasPrefix(name, socketPrefix):
		n, err := strconv.ParseUint(strings.TrimPrefix(name, socketPrefix), 10, 16)
		if err != nil {
			return Address{}, fmt.Errorf("%q does not end in a port; libpq looks for %s5432", text, socketPrefix)
		}
		port = uint16(n)
	case strings.HasSuffix(text, "/") || !strings.HasSuffix(name, ".sock"):
		path = filepath.Join(path, socketPrefix+strconv.Itoa(int(port)))
	}
	if len(path) > maxPath {
		return Address{}, fmt.Errorf("the path of the socket %q has %d bytes; the system allows %d", path, len(path), maxPath)
	}
	return Address{Path: path, Port: port}, nil
}

// String returns the address in a form that Parse accepts.
func (a Address) String() string {
	if a.Path != "" {
		return a.Path
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// Local reports whether only programs on this machine can connect.
func (a Address) Local() bool {
	return a.Path != "" || a.Host == "localhost" || isLoopback(a.Host)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Conflicts reports whether the addresses, or some of them, are the same. Port 0 conflicts
// with no other.
func (a Address) Conflicts(b Address) bool {
	if a.Path != "" || b.Path != "" {
		return a.Path == b.Path
	}
	if a.Port != b.Port || a.Port == 0 {
		return false
	}
	return a.Host == b.Host || a.includes(b) || b.includes(a)
}

// includes reports whether the host of a stands for several addresses, and the host of b
// for one of them.
func (a Address) includes(b Address) bool {
	ip, err := netip.ParseAddr(b.Host)
	switch a.Host {
	case "", "::":
		return true
	case "0.0.0.0":
		return err != nil || ip.Unmap().Is4()
	case "localhost":
		return b.Host == "127.0.0.1" || b.Host == "::1"
	}
	return false
}

// Private reports whether file permissions restrict who can connect. They do not
// for an abstract socket.
func (a Address) Private() bool { return a.Path != "" && a.Path[0] != '@' }

// ForLibpq reports whether clients that use libpq can connect. libpq looks for a Unix
// socket by its directory and port.
func (a Address) ForLibpq() bool {
	return a.Path == "" || strings.HasPrefix(filepath.Base(a.Path), socketPrefix)
}

// ClientHost returns the host for a client on this machine. For a Unix socket, it is
// the directory, or the socket's path if libpq could not find it by the directory.
func (a Address) ClientHost() string {
	switch {
	case a.Path != "" && a.ForLibpq():
		return filepath.Dir(a.Path)
	case a.Path != "":
		return a.Path
	case a.Host == "" || a.Host == "0.0.0.0":
		return "127.0.0.1"
	case a.Host == "::":
		return "::1"
	}
	return a.Host
}
