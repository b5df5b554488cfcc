// Package sdnotify tells systemd about the state of a service:
// https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// States of a service.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Alive    = "WATCHDOG=1" // see [Notifier.Watchdog]
)

// A Notifier sends states to the socket that NOTIFY_SOCKET names. The zero value
// sends nothing.
type Notifier struct {
	socket   string
	watchdog time.Duration
}

// FromEnvironment returns the Notifier for NOTIFY_SOCKET and WATCHDOG_USEC. It
// unsets the variables, so that child processes do not send states in this
// process's name.
func FromEnvironment() Notifier {
	n := Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid, set := os.LookupEnv("WATCHDOG_PID") // for another process, the watchdog is not ours
	if err == nil && usec > 0 && (!set || pid == strconv.Itoa(os.Getpid())) && n.socket != "" {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	return n
}

// Watchdog returns how often Alive must be sent, or systemd restarts the service.
// It is 0 if systemd does not wait for it. Half of WATCHDOG_USEC is what systemd
// recommends.
func (n Notifier) Watchdog() time.Duration { return n.watchdog / 2 }

// sendTimeout bounds the time to send a state. A state cannot be sent while the
// socket's queue is full, which every local process can cause.
const sendTimeout = time.Second

// Send sends a state. It waits for at most a second.
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
	conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}
