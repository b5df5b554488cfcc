package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/internal/inspect"
)

// An endpoint is a host of the DSN, with the results of the steps for it.
type endpoint struct {
	host      string
	port      uint16
	tls       *tls.Config
	network   string // as in package net
	addresses []string
	conn      net.Conn
	failed    bool // in a step
}

func (e *endpoint) String() string {
	if e.network == "unix" {
		return e.host
	}
	return net.JoinHostPort(e.host, fmt.Sprint(e.port))
}

// isReady returns the command that shows whether a server accepts connections.
func (e *endpoint) isReady() string {
	return fmt.Sprintf("pg_isready -h %s -p %d", quote.Shell(e.host), e.port)
}

func endpointsOf(login *inspect.Login) []*endpoint {
	var all []*endpoint
	for _, h := range inspect.Hosts(&login.Config.Config) {
		network, _ := pgconn.NetworkAddress(h.Host, h.Port)
		all = append(all, &endpoint{host: h.Host, port: h.Port, tls: h.TLSConfig, network: network})
	}
	return all
}

// hostsOf returns the hosts of endpoints.
func hostsOf(endpoints []*endpoint) []string {
	var hosts []string
	for _, e := range endpoints {
		hosts = append(hosts, e.host)
	}
	return hosts
}

// areLocal reports whether all hosts are sockets or this machine.
func areLocal(hosts []string) bool {
	return len(hosts) > 0 && !slices.ContainsFunc(hosts, func(host string) bool { return !inspect.IsLocal(host) })
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
