package pgwire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// linger is how long a client may take to close its connection after the server
// has. Closing at once could discard the server's last words on the way to the
// client.
const linger = 2 * time.Second

// A Relay passes bytes on between a client and a server until either ends. The
// end of one side's bytes is passed on like bytes, so nothing that was sent
// before is lost.
type Relay struct {
	// Client and Server are the two connections: a Conn, or TLS over one.
	Client, Server net.Conn

	// ToServer, if not nil, is written to instead of Server.
	ToServer io.Writer

	// FromClient and FromServer are what has been read from them already.
	FromClient, FromServer []byte

	received, sent atomic.Int64
	tail           [6]byte // the last bytes sent to the client
	stop           atomic.Pointer[Error]
}

// Run relays until the session has ended, and closes both connections.
func (r *Relay) Run() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.up()
	}()
	r.down()
	<-done
	r.Server.Close()
	r.Client.Close()
}

// Stop ends the session. If the client is not in the middle of a message, it is
// sent failure first.
func (r *Relay) Stop(failure *Error) {
	if r.stop.CompareAndSwap(nil, failure) {
		r.Client.SetWriteDeadline(time.Now().Add(time.Second))
		r.Server.SetDeadline(time.Unix(1, 0))
		// The end of TLS can take 5 seconds if the other side reads nothing.
		time.AfterFunc(time.Second+linger, func() {
			network(r.Server).Close()
			network(r.Client).Close()
		})
	}
}

// network returns the connection without TLS.
func network(conn net.Conn) net.Conn {
	if secured, ok := conn.(*tls.Conn); ok {
		return secured.NetConn()
	}
	return conn
}

// Bytes returns how many bytes have come from the client and gone to it.
func (r *Relay) Bytes() (received, sent int64) { return r.received.Load(), r.sent.Load() }

// up relays from the client to the server until the client's end.
func (r *Relay) up() {
	server := r.ToServer
	if server == nil {
		server = r.Server
	}
	err := pump(server, r.Client, r.FromClient, func(b []byte) { r.received.Add(int64(len(b))) })
	switch {
	case errors.Is(err, io.EOF):
		closeWrite(r.Server)
	case errors.Is(err, errWrite):
		// The server's reason may be on its way to the client, which must be able
		// to send in the meantime.
		_, _ = io.Copy(io.Discard, r.Client)
	default:
		r.Server.Close()
	}
}

// down relays from the server to the client until the server's end.
func (r *Relay) down() {
	err := pump(r.Client, r.Server, r.FromServer, func(b []byte) {
		r.sent.Add(int64(len(b)))
		r.tail = lastOf(r.tail, b)
	})
	if errors.Is(err, errWrite) {
		r.Server.Close()
		r.Client.Close()
		return
	}
	if failure := r.stop.Load(); failure != nil && readyForQuery(r.tail) {
		_, _ = r.Client.Write(failure.Encode())
	}
	r.Server.Close()
	closeWrite(r.Client)
	r.Client.SetReadDeadline(time.Now().Add(linger))
}

var errWrite = errors.New("write failed")

// pump copies from src to dst, first early, until either fails. It never returns
// nil.
func pump(dst io.Writer, src net.Conn, early []byte, count func([]byte)) error {
	pass := func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		count(b)
		if _, err := dst.Write(b); err != nil {
			return errWrite
		}
		return nil
	}
	if err := pass(early); err != nil {
		return err
	}
	secured, encrypted := src.(*tls.Conn)
	if encrypted {
		src = secured.NetConn()
	}
	conn, ok := src.(*Conn)
	switch {
	case !ok:
		return errors.New("pgwire: the connection of a Relay is not a Conn")
	case encrypted:
		return decrypt(conn, secured, pass)
	}
	for {
		if err := conn.Fill(); err != nil {
			return err
		}
		err := pass(conn.buffered())
		conn.discard()
		if err != nil {
			return err
		}
	}
}

// decrypt passes on what arrives under TLS, as much at once as has arrived.
func decrypt(conn *Conn, secured *tls.Conn, pass func([]byte) error) error {
	for {
		buffer := buffers.Get().(*[bufferSize]byte)
		n, err := conn.drain(secured, buffer[:])
		failed := pass(buffer[:n])
		buffers.Put(buffer)
		switch {
		case failed != nil:
			return failed
		case err != nil:
			return err
		case n == len(buffer): // more may have arrived
			continue
		}
		if err := conn.Fill(); err != nil {
			return err
		}
	}
}

// lastOf returns the last bytes of tail and b.
func lastOf(tail [6]byte, b []byte) [6]byte {
	if len(b) >= len(tail) {
		return [6]byte(b[len(b)-len(tail):])
	}
	copy(tail[:], tail[len(b):])
	copy(tail[len(tail)-len(b):], b)
	return tail
}

// readyForQuery reports whether a server's bytes end with a ReadyForQuery.
func readyForQuery(tail [6]byte) bool {
	return [5]byte(tail[:5]) == [5]byte{typeReadyForQuery, 0, 0, 0, 5}
}

// Linger ends what is sent to a client, and waits a moment for the client to
// close its connection. Closing at once could discard the last message on its way.
func Linger(client net.Conn) {
	closeWrite(client)
	client.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.Copy(io.Discard, client)
}

// closeWrite ends what is sent on a connection, on all of its layers.
func closeWrite(conn net.Conn) {
	switch c := conn.(type) {
	case *tls.Conn:
		_ = c.CloseWrite()
		closeWrite(c.NetConn())
	case interface{ CloseWrite() error }:
		_ = c.CloseWrite()
	}
}
