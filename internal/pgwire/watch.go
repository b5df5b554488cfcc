package pgwire

import (
	"net"
	"time"
)

// A Watch reads from a client while the client waits for its login, to detect that it
// disconnects.
type Watch struct {
	conn  net.Conn
	early []byte
	err   error
	done  chan struct{}
}

// NewWatch returns a Watch that calls gone if the client disconnects.
func NewWatch(conn net.Conn, gone func()) *Watch {
	w := &Watch{conn: conn, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		buffer := make([]byte, 256)
		n, err := conn.Read(buffer)
		w.early, w.err = buffer[:n], err
		if err != nil && !isTimeout(err) {
			gone()
		}
	}()
	return w
}

// Stop ends the Watch. It returns what the client has sent, or an error if the
// client has disconnected.
func (w *Watch) Stop() (early []byte, err error) {
	w.conn.SetReadDeadline(time.Unix(1, 0))
	<-w.done
	w.conn.SetReadDeadline(time.Time{})
	if w.err != nil && !isTimeout(w.err) {
		return nil, w.err
	}
	return w.early, nil
}
