package pgwire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A direction of a Relay reads into a small buffer of its own while little
// arrives, and into a large one from a pool while reads fill the buffer.
const (
	smallBuffer = 2 << 10
	largeBuffer = 64 << 10
)

// linger is how long a client may take to close its connection after the server
// has. Closing at once could discard the server's last words on the way to the
// client.
const linger = 2 * time.Second

var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// A Relay passes bytes on between a client and a server until either ends. The
// end of one side's bytes is passed on like bytes, so nothing that was sent
// before is lost.
type Relay struct {
	Client, Server net.Conn

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
	}
}

// Bytes returns how many bytes have come from the client and gone to it.
func (r *Relay) Bytes() (received, sent int64) { return r.received.Load(), r.sent.Load() }

// up relays from the client to the server until the client's end.
func (r *Relay) up() {
	err := r.pump(r.Server, r.Client, r.FromClient, func(b []byte) { r.received.Add(int64(len(b))) })
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
	err := r.pump(r.Client, r.Server, r.FromServer, func(b []byte) {
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
func (r *Relay) pump(dst io.Writer, src io.Reader, early []byte, count func([]byte)) error {
	if len(early) > 0 {
		count(early)
		if _, err := dst.Write(early); err != nil {
			return errWrite
		}
	}
	small := make([]byte, smallBuffer)
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for buffer := small; ; {
		n, err := src.Read(buffer)
		if n > 0 {
			count(buffer[:n])
			if _, err := dst.Write(buffer[:n]); err != nil {
				return errWrite
			}
		}
		switch {
		case err != nil:
			return err
		case n == len(small) && large == nil:
			large = buffers.Get().(*[largeBuffer]byte)
			buffer = large[:]
		case n < len(small) && large != nil:
			buffers.Put(large)
			large, buffer = nil, small
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
	case *unread:
		closeWrite(c.Conn)
	case interface{ CloseWrite() error }:
		_ = c.CloseWrite()
	}
}
