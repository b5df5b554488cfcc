package pgwire

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// linger is the time that a client has to close its connection after the server
// has closed its own. Closing at once could discard the server's last message on the
// way to the client.
const linger = 2 * time.Second

// A Relay forwards bytes between a client and a server until either ends. It forwards
// the end of a direction after the bytes before it, so that none are lost.
//
// Run owns the connections: once it is called, nothing else may use them. The other
// methods are safe for concurrent use, also before and after Run.
type Relay struct {
	// Client and Server are the two connections: a Conn, or TLS over one.
	Client, Server net.Conn

	// ToServer, if not nil, is written to instead of Server.
	ToServer io.Writer

	// FromClient and FromServer are bytes that were read from them before the relay.
	FromClient, FromServer []byte

	received, sent atomic.Int64
	tail           [6]byte // the last bytes sent to the client
	stop           atomic.Pointer[Error]

	mu    sync.Mutex
	mover mover // guarded by mu; nil before Run
}

// A mover moves the bytes of a Relay. stop and close may be called several times,
// also before run and after it.
type mover interface {
	// run returns when the session has ended and both connections are closed.
	run()
	// stop ends the session within a few seconds. It sends the client the failure of
	// Stop.
	stop()
	// close ends the session at once.
	close()
}

// Run relays until the session has ended, and closes both connections.
func (r *Relay) Run() {
	r.mu.Lock()
	if r.mover = newPair(r); r.mover == nil {
		r.mover = copier{r}
	}
	if r.stop.Load() != nil {
		r.mover.stop()
	}
	r.mu.Unlock()
	r.mover.run()
}

// Stop ends the session. It first sends failure to the client, unless the client is in
// the middle of a message.
func (r *Relay) Stop(failure *Error) {
	if !r.stop.CompareAndSwap(nil, failure) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mover != nil {
		r.mover.stop()
	}
}

// Close ends the session at once, and closes both connections. It always returns
// nil.
func (r *Relay) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mover != nil {
		r.mover.close()
	} else {
		r.closeNetwork()
	}
	return nil
}

// closeNetwork closes both connections without the end of TLS, which can block.
func (r *Relay) closeNetwork() {
	for _, conn := range []net.Conn{r.Server, r.Client} {
		if secured, ok := conn.(*tls.Conn); ok {
			conn = secured.NetConn()
		}
		conn.Close()
	}
}

// Bytes returns the numbers of bytes received from and sent to the client.
func (r *Relay) Bytes() (received, sent int64) { return r.received.Load(), r.sent.Load() }

func (r *Relay) countReceived(b []byte) { r.received.Add(int64(len(b))) }

func (r *Relay) countSent(b []byte) {
	r.sent.Add(int64(len(b)))
	r.tail = lastOf(r.tail, b)
}

// sendLast sends the client the failure of Stop.
func (r *Relay) sendLast() {
	if failure := r.stop.Load(); failure != nil && readyForQuery(r.tail) {
		_, _ = r.Client.Write(failure.Encode())
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
	status := tail[5]
	return [5]byte(tail[:5]) == [5]byte{typeReadyForQuery, 0, 0, 0, 5} && (status == 'I' || status == 'T' || status == 'E')
}

// closeWrite closes the sending side of a connection, on all of its layers.
func closeWrite(conn net.Conn) {
	switch c := conn.(type) {
	case *tls.Conn:
		_ = c.CloseWrite()
		closeWrite(c.NetConn())
	case interface{ CloseWrite() error }:
		_ = c.CloseWrite()
	}
}
