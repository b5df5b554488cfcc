package pgwire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// An endpoint is one of the two connections of a [pair].
type endpoint struct {
	pair   *pair
	peer   *endpoint
	conn   net.Conn  // as in Relay
	secure *tls.Conn // conn, or nil for plaintext
	base   *Conn     // conn, or the Conn below TLS
	socket *socket   // network connection of base
	count  func([]byte)

	watched uint32 // events that the loop waits for
	ended   bool   // no longer read
	discard bool   // bytes that are read are discarded
}

// newEndpoint returns nil, and leaves the connection unchanged, if the connection is
// not a socket or no file descriptor is free.
func newEndpoint(p *pair, conn net.Conn, count func([]byte)) *endpoint {
	e := &endpoint{pair: p, conn: conn, count: count}
	if e.secure, _ = conn.(*tls.Conn); e.secure != nil {
		conn = e.secure.NetConn()
	}
	var ok bool
	if e.base, ok = conn.(*Conn); !ok {
		return nil
	}
	var err error
	if e.socket, err = newSocket(e.base.Conn); err != nil {
		return nil
	}
	return e
}

// begin forwards the bytes that were read before the relay.
func (e *endpoint) begin(early []byte) {
	e.pass(early)
	if e.secure != nil {
		e.decrypt()
	} else {
		e.pass(e.base.buffered())
	}
	e.base.discard()
}

// wanted returns the events to wait for. The endpoint does not read while its peer has
// unsent bytes, which bounds memory.
func (e *endpoint) wanted() (events uint32) {
	if !e.ended && (e.discard || !e.peer.socket.pending()) && !e.socket.full() {
		events = unix.EPOLLIN
	}
	if e.socket.pending() {
		events |= unix.EPOLLOUT
	}
	return events
}

// ready handles events, which can also be EPOLLERR and EPOLLHUP. It reads once, at
// most a buffer, so that the sessions of a loop take turns.
func (e *endpoint) ready(events uint32) {
	if events&^unix.EPOLLIN != 0 && e.socket.pending() {
		if err := e.socket.flush(); err != nil {
			e.peer.undeliverable()
		}
	}
	if events&^unix.EPOLLOUT != 0 && e.watched&unix.EPOLLIN != 0 && !e.ended {
		e.read()
	}
	e.pair.update()
}

// read forwards the bytes that have arrived.
func (e *endpoint) read() {
	buffer := e.pair.loop.arrived
	n, err := unix.Read(e.socket.fd, buffer[:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	case err != nil:
		e.end(err)
	case n == 0:
		e.end(io.EOF)
	case e.secure == nil:
		e.pass(buffer[:n])
	default:
		e.base.unread = buffer[:n]
		e.decrypt()
		e.base.unread = nil
	}
}

// decrypt decrypts and forwards the bytes that have arrived.
func (e *endpoint) decrypt() {
	plain := e.pair.loop.decrypted
	for !e.ended {
		n, err := e.base.drain(e.secure, plain[:])
		e.pass(plain[:n])
		if err != nil {
			e.end(err)
		}
		if n < len(plain) {
			return
		}
	}
}

// pass forwards bytes to the peer.
func (e *endpoint) pass(b []byte) {
	if len(b) == 0 || e.ended || e.discard {
		return
	}
	e.count(b)
	if _, err := e.peer.conn.Write(b); err != nil {
		e.undeliverable()
	}
}

// undeliverable is called when the peer can no longer be written to.
func (e *endpoint) undeliverable() {
	if e == e.pair.server {
		e.pair.finish()
		return
	}
	// The server's last message may be on its way to the client, which must be able to
	// send in the meantime.
	e.discard = true
}

// end is called when the endpoint has sent its last byte.
func (e *endpoint) end(err error) {
	if e.ended {
		return
	}
	e.ended = true
	switch {
	case e == e.pair.server:
		e.pair.serverEnded()
	case errors.Is(err, io.EOF):
		closeWrite(e.peer.conn)
	default:
		e.pair.finish()
	}
}

// close closes the connection. The loop must stop watching the file descriptor first.
// Otherwise, it reports events while a child process holds a copy, before exec.
func (e *endpoint) close() {
	e.ended = true
	_ = e.pair.loop.watch(e, 0)
	e.conn.Close()
	e.socket.Close()
}
