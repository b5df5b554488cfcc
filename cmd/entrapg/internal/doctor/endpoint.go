package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
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

func endpointsOf(config *pgx.ConnConfig) []*endpoint {
	var all []*endpoint
	add := func(host string, port uint16, tls *tls.Config) {
		if n := len(all); n > 0 && all[n-1].host == host && all[n-1].port == port {
			return
		}
		network, _ := pgconn.NetworkAddress(host, port)
		all = append(all, &endpoint{host: host, port: port, tls: tls, network: network})
	}
	add(config.Host, config.Port, config.TLSConfig)
	for _, f := range config.Fallbacks {
		add(f.Host, f.Port, f.TLSConfig)
	}
	return all
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
