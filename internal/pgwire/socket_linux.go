package pgwire

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxUnsent is the number of unsent bytes at which a socket is no longer read. The peer
// is not read while any byte is unsent, so a socket holds at most one buffer of the
// peer's bytes with the overhead of TLS. The rest is room for messages of TLS itself
// to a client or server that does not read, such as answers to key updates.
const maxUnsent = 2 * bufferSize

// A socket is the network connection of an [endpoint]. Its writes do not block: it
// holds bytes that the system does not accept at once, until flush.
type socket struct {
	fd            int
	local, remote net.Addr

	unsent []byte
	ending bool  // CloseWrite was called
	err    error // of the first write that failed, or net.ErrClosed
}

// newSocket returns a socket with a duplicate of a connection's file descriptor.
func newSocket(network net.Conn) (*socket, error) {
	c, ok := network.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{local: network.LocalAddr(), remote: network.RemoteAddr()}
	var failed error
	err = raw.Control(func(fd uintptr) { s.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return s, errors.Join(err, failed)
}

// Write sends b or holds it. It also reports the error of an earlier write.
func (s *socket) Write(b []byte) (int, error) {
	n := 0
	if len(s.unsent) == 0 {
		n = s.send(b)
	}
	if s.err != nil {
		return 0, s.err
	}
	s.unsent = append(s.unsent, b[n:]...)
	return len(b), nil
}

// flush sends the held bytes that the system accepts.
func (s *socket) flush() error {
	s.unsent = s.unsent[s.send(s.unsent):]
	if s.pending() || s.err != nil {
		return s.err
	}
	s.unsent = nil
	if s.ending {
		_ = unix.Shutdown(s.fd, unix.SHUT_WR)
	}
	return nil
}

// send returns the number of bytes that the system has accepted.
func (s *socket) send(b []byte) (n int) {
	for n < len(b) && s.err == nil {
		sent, err := unix.Write(s.fd, b[n:])
		switch {
		case err == nil:
			n += sent
		case errors.Is(err, unix.EAGAIN):
			return n
		case !errors.Is(err, unix.EINTR):
			s.err = err
		}
	}
	return n
}

// pending reports whether the socket has bytes for flush.
func (s *socket) pending() bool { return len(s.unsent) > 0 && s.err == nil }

// full reports whether the socket has too many unsent bytes to be read.
func (s *socket) full() bool { return len(s.unsent) > maxUnsent && s.err == nil }

// CloseWrite closes the sending side, once all bytes are sent.
func (s *socket) CloseWrite() error {
	s.ending = true
	return s.flush()
}

// Close closes the file descriptor.
func (s *socket) Close() error {
	if errors.Is(s.err, net.ErrClosed) {
		return nil
	}
	s.err, s.unsent = net.ErrClosed, nil
	return unix.Close(s.fd)
}

// Read is never called without nonblocking: the endpoint reads, and passes the bytes to
// the Conn.
func (s *socket) Read([]byte) (int, error) { return 0, errWouldBlock }

func (s *socket) LocalAddr() net.Addr  { return s.local }
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// TLS sets deadlines for its last message. They are ignored: the pair has its own.
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
