package main

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Part is one step of a Connect: its median in milliseconds, and its share of
// the whole.
type Part struct {
	Name  string  `json:"name"`
	Took  float64 `json:"took"`
	Share float64 `json:"share"`
}

// anatomy measures the steps of a warm Connect of entrapg with pgx's hooks.
func anatomy(ctx context.Context, b *bench) ([]Part, error) {
	var dialing, dialed, secured, accepted time.Time
	adjust := func(config *pgx.ConnConfig) {
		dial := config.DialFunc
		config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialing = time.Now()
			conn, err := dial(ctx, network, addr)
			dialed = time.Now()
			return conn, err
		}
		config.AfterNetConnect = func(ctx context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
			// pgx would do the handshake at the first write.
			err := conn.(*tls.Conn).HandshakeContext(ctx)
			secured = time.Now()
			return conn, err
		}
		config.AfterConnect = func(context.Context, *pgconn.PgConn) error {
			accepted = time.Now()
			return nil
		}
	}
	connector, err := b.open(ctx, ways[0], clientSecret(b.principal, 0), adjust)
	if err != nil {
		return nil, err
	}
	defer closeConnector(connector)

	var whole, before, tcp, handshake, login, after, server []float64
	for i := range pick(b.short, 4, 301) {
		begin := time.Now()
		took, err := connect(ctx, connector)
		if err != nil {
			return nil, err
		}
		// PostgreSQL alone, without the front: fork, SCRAM and session start, over a Unix socket.
		direct := time.Now()
		conn, err := pgconn.Connect(ctx, b.server.AdminDSN())
		if err != nil {
			return nil, err
		}
		forked := time.Since(direct)
		conn.Close(ctx)
		if i == 0 { // this connect requested the token
			continue
		}
		whole = append(whole, milliseconds(took))
		before = append(before, milliseconds(dialing.Sub(begin)))
		tcp = append(tcp, milliseconds(dialed.Sub(dialing)))
		handshake = append(handshake, milliseconds(secured.Sub(dialed)))
		login = append(login, milliseconds(accepted.Sub(secured)))
		after = append(after, milliseconds(begin.Add(took).Sub(accepted)))
		server = append(server, milliseconds(forked))
	}
	total := median(whole)
	part := func(name string, took float64) Part { return Part{name, took, took / total} }
	return []Part{
		part("entrapg and pgx before they dial, including the token step", median(before)),
		part("TCP connection", median(tcp)),
		part("TLS handshake, client and server", median(handshake)),
		part("login: token check, PostgreSQL's fork and authentication", median(login)),
		part("for comparison: PostgreSQL alone, with a SCRAM password of 4096 iterations", median(server)),
		part("pgx after the login", median(after)),
		part("total", total),
	}, nil
}
