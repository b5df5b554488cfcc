package pgwire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// A copier relays with a goroutine for each direction.
type copier struct{ relay *Relay }

func (c copier) run() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.up()
	}()
	c.down()
	<-done
	c.relay.Server.Close()
	c.relay.Client.Close()
}

func (c copier) stop() {
	c.relay.Client.SetWriteDeadline(time.Now().Add(time.Second))
	c.relay.Server.SetDeadline(time.Unix(1, 0))
	// The end of TLS can take 5 seconds if the other side reads nothing.
	time.AfterFunc(time.Second+linger, c.close)
}

func (c copier) close() { c.relay.closeNetwork() }

// up relays from the client to the server until the client's end.
func (c copier) up() {
	r := c.relay
	server := r.ToServer
	if server == nil {
		server = r.Server
	}
	err := pump(server, r.Client, r.FromClient, r.countReceived)
	switch {
	case errors.Is(err, io.EOF):
		closeWrite(r.Server)
	case errors.Is(err, errWrite):
		// The server's last message may be on its way to the client, which must be able
		// to send in the meantime.
		_, _ = io.Copy(io.Discard, r.Client)
	default:
		r.Server.Close()
	}
}

// down relays from the server to the client until the server's end.
func (c copier) down() {
	r := c.relay
	err := pump(r.Client, r.Server, r.FromServer, r.countSent)
	if errors.Is(err, errWrite) {
		r.Server.Close()
		r.Client.Close()
		return
	}
	r.sendLast()
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

// decrypt forwards bytes that arrive under TLS, with one write for all that have
// arrived.
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
