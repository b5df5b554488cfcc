//go:build !linux

package entrapg_test

import (
	"net"
	"testing"
)

// keepaliveOf reports that reading the settings is not supported on this system.
func keepaliveOf(*testing.T, net.Conn) (keepalive, bool) { return keepalive{}, false }
