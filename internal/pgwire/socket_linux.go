package pgwire

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxUnsent is how much a socket may hold before nothing more is read from it. An
// endpoint's peer is not read while anything is unsent, so the socket holds at most
// one buffer of the peer's bytes, and TLS's overhead. The rest is what TLS answers to
// a client or server that does not read, such as one that only requests new keys.
const maxUnsent = 2 * bufferSize

// A socket is the network connection of an [endpoint]. Its writes do not block: it
// holds what the system does not accept at once, until flush.
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

// Write sends b or holds it. It reports the error of an earlier write too.
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

// flush sends what the socket holds, as far as the system accepts it.
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

// send returns how much the system has accepted.
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

// pending reports whether flush has something to send.
func (s *socket) pending() bool { return len(s.unsent) > 0 && s.err == nil }

// full reports whether so much is unsent that nothing more should be read.
func (s *socket) full() bool { return len(s.unsent) > maxUnsent && s.err == nil }

// CloseWrite ends what is sent, once everything is.
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

// Read is never called without inHaste: the endpoint reads, and passes the bytes to
// the Conn.
func (s *socket) Read([]byte) (int, error) { return 0, errWouldBlock }

func (s *socket) LocalAddr() net.Addr  { return s.local }
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// TLS sets deadlines for its last message. The pair has its own.
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
