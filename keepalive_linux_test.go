package entrapg_test

import (
	"net"
	"syscall"
	"testing"
)

// keepaliveOf returns the keepalive settings of a socket.
func keepaliveOf(t *testing.T, conn net.Conn) (k keepalive, supported bool) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(fd uintptr, level, option int) int {
		value, err := syscall.GetsockoptInt(int(fd), level, option)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	if err := raw.Control(func(fd uintptr) {
		if k.enabled = get(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) != 0; k.enabled {
			k.idle = get(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
			k.interval = get(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)
			k.probes = get(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return k, true
}
