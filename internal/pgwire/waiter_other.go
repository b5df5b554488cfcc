//go:build !unix

package pgwire

import "net"

// smallBuffer is the memory that a connection holds while it waits.
const smallBuffer = 2 << 10

// A waiter reads from a network connection. It waits with a small buffer, unless the
// last read filled its buffer.
type waiter struct {
	small []byte
	much  bool // the last read filled its buffer
}

func (w *waiter) init(net.Conn) { w.small = make([]byte, smallBuffer) }

// read waits, and returns a buffer with n bytes. n is 0 at the end.
func (w *waiter) read(network net.Conn) (buffer *[bufferSize]byte, n int, err error) {
	if w.much {
		buffer = buffers.Get().(*[bufferSize]byte)
		n, err = network.Read(buffer[:])
		w.much = n == len(buffer)
		return buffer, n, err
	}
	n, err = network.Read(w.small)
	w.much = n == len(w.small)
	if n > 0 {
		buffer = buffers.Get().(*[bufferSize]byte)
		copy(buffer[:], w.small[:n])
	}
	return buffer, n, err
}
