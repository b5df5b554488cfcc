//go:build !linux

package entrapg_test

import (
	"net"
	"testing"
)

// keepaliveOf reports that the system cannot be asked.
func keepaliveOf(*testing.T, net.Conn) (keepalive, bool) { return keepalive{}, false }
