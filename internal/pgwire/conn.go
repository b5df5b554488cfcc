package pgwire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
)

// bufferSize is the size of a read: several of PostgreSQL's messages of 8 kB, or of
// TLS's records of at most 16 kB.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A Conn is a network connection that reads with a large buffer, but holds no memory
// while it waits. TLS can be used over it. It is not safe for concurrent reads.
type Conn struct {
	net.Conn
	waiter waiter

	buffer      *[bufferSize]byte // from the pool, or nil
	unread      []byte            // of buffer
	limited     bool              // left bounds the bytes that Read returns
	left        int
	nonblocking bool // Read returns errWouldBlock instead of waiting
}

// NewConn returns a Conn over a network connection.
func NewConn(network net.Conn) *Conn {
	c := &Conn{Conn: network}
	c.waiter.init(network)
	return c
}

// Fill waits until bytes can be read.
func (c *Conn) Fill() error {
	if len(c.unread) > 0 {
		return nil
	}
	buffer, n, err := c.waiter.read(c.Conn)
	c.buffer = buffer
	if n > 0 {
		c.unread = buffer[:n]
		return nil
	}
	c.discard()
	if err == nil {
		err = io.EOF
	}
	return err
}

// limit bounds the bytes that Read returns from now on.
func (c *Conn) limit(n int) { c.limited, c.left = true, n }

// Read returns buffered bytes, or waits.
func (c *Conn) Read(b []byte) (int, error) {
	if c.limited {
		if c.left == 0 {
			return 0, errLimit
		}
		b = b[:min(len(b), c.left)]
	}
	if len(b) == 0 {
		return 0, nil
	}
	if len(c.unread) == 0 {
		if c.nonblocking {
			return 0, errWouldBlock
		}
		if err := c.Fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.unread)
	if c.limited {
		c.left -= n
	}
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.discard()
	}
	return n, nil
}

// discard returns the buffer to the pool.
func (c *Conn) discard() {
	c.unread = nil
	if c.buffer != nil {
		buffers.Put(c.buffer)
		c.buffer = nil
	}
}

// replace closes the network connection and uses another one.
func (c *Conn) replace(network net.Conn) {
	c.Close()
	c.Conn, c.waiter = network, waiter{}
}

// CloseWrite closes the sending side.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// buffered returns the bytes that have been read from the network, but not from the
// Conn.
func (c *Conn) buffered() []byte { return c.unread }

// drain reads from secured, which is TLS over the Conn, all bytes that have arrived.
func (c *Conn) drain(secured *tls.Conn, b []byte) (n int, err error) {
	c.nonblocking = true
	for err == nil && n < len(b) {
		var more int
		more, err = secured.Read(b[n:])
		n += more
	}
	c.nonblocking = false
	if errors.Is(err, errWouldBlock) {
		err = nil
	}
	return n, err
}

var errLimit = errors.New("the client has sent too many bytes before it authenticated")

// errWouldBlock is a temporary net.Error, like one of a deadline, so that TLS does not
// store it.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing can be read without waiting" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }
