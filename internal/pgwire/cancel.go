package pgwire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// maxKey is the longest secret key that the protocol allows.
const maxKey = 256

// A CancelRequest asks a server to cancel the query of a session.
type CancelRequest struct {
	PID uint32
	Key []byte
}

// Encode returns the message as it is sent.
func (c CancelRequest) Encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(c.Key)))
	b = binary.BigEndian.AppendUint32(b, codeCancel)
	b = binary.BigEndian.AppendUint32(b, c.PID)
	return append(b, c.Key...)
}

// A Canceler sends cancel requests to one server.
type Canceler struct {
	Dial             pgconn.DialFunc
	Network, Address string
	TLS              *tls.Config // nil for plaintext
	Direct           bool        // sslnegotiation=direct
}

// Cancel sends a request and waits until the server closes the connection, after it has
// handled the request. ctx must have a deadline.
func (c *Canceler) Cancel(ctx context.Context, request CancelRequest) error {
	conn, err := c.Dial(ctx, c.Network, c.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	network := conn
	stop := context.AfterFunc(ctx, func() { network.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if c.TLS != nil {
		if conn, err = c.encrypt(ctx, network); err != nil {
			return err
		}
	}
	if _, err := conn.Write(request.Encode()); err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, conn, 1)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (c *Canceler) encrypt(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if !c.Direct {
		answer, err := RequestTLS(conn)
		if err != nil {
			return nil, err
		}
		if answer != 'S' {
			return nil, errors.New("the server does not support TLS for cancel requests")
		}
	}
	secured := tls.Client(conn, c.TLS)
	return secured, secured.HandshakeContext(ctx)
}
