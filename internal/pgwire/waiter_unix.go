//go:build unix

package pgwire

import (
	"net"
	"os"
	"syscall"
)

// A waiter reads from a network connection, and takes a buffer only when bytes have
// arrived.
type waiter struct {
	raw    syscall.RawConn // nil if the connection is not a socket
	ready  func(fd uintptr) bool
	buffer *[bufferSize]byte
	n      int
	err    error
}

func (w *waiter) init(network net.Conn) {
	if c, ok := network.(syscall.Conn); ok {
		w.raw, _ = c.SyscallConn()
		w.ready = w.try
	}
}

// read waits, and returns a buffer with n bytes. n is 0 at the end.
func (w *waiter) read(network net.Conn) (buffer *[bufferSize]byte, n int, err error) {
	if w.raw == nil {
		buffer = buffers.Get().(*[bufferSize]byte)
		n, err = network.Read(buffer[:])
		return buffer, n, err
	}
	w.n, w.err = 0, nil
	if err := w.raw.Read(w.ready); err != nil {
		return nil, 0, err
	}
	buffer, w.buffer = w.buffer, nil
	return buffer, w.n, w.err
}

func (w *waiter) try(fd uintptr) bool {
	buffer := buffers.Get().(*[bufferSize]byte)
	for {
		n, err := syscall.Read(int(fd), buffer[:])
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			buffers.Put(buffer)
			return false
		case nil:
			w.buffer, w.n, w.err = buffer, n, nil
		default:
			w.buffer, w.n, w.err = buffer, 0, os.NewSyscallError("read", err)
		}
		return true
	}
}
