// Package sdnotify tells systemd about the state of a service:
// https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
package sdnotify

import (
	"fmt"
	"net"
	"os"
)

// States of a service.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
)

// A Notifier sends states to the socket that NOTIFY_SOCKET names. The zero value
// sends nothing.
type Notifier struct{ socket string }

// FromEnvironment returns the Notifier for NOTIFY_SOCKET. It unsets the variable,
// so that child processes do not send states in this process's name.
func FromEnvironment() Notifier {
	socket := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	return Notifier{socket}
}

// Send sends a state.
func (n Notifier) Send(state string) error {
	if n.socket == "" {
		return nil
	}
	if n.socket[0] != '/' && n.socket[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET: unsupported address %q; want a path or @NAME", n.socket)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}
