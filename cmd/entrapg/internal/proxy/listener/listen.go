package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// Listen opens the listeners of an address. A host name can have several
// addresses, which then have the same port. localhost is 127.0.0.1 and, if the
// machine has IPv6, ::1.
//
// A Unix socket has mode 0600 and is removed when the listener is closed. A
// socket that another program left behind is replaced.
func Listen(ctx context.Context, a Address) ([]net.Listener, error) {
	if a.Path != "" {
		l, err := listenUnix(ctx, a.Path)
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	}
	hosts, err := hostsOf(ctx, a)
	if err != nil {
		return nil, err
	}
	const maxPorts = 100
	for n := 1; ; n++ {
		all, err := listenTCP(ctx, a, hosts)
		// A port that the system chooses for one host can be in use on another.
		if a.Port != 0 || n == maxPorts || !errors.Is(err, syscall.EADDRINUSE) {
			return all, err
		}
	}
}

// listenTCP listens on all hosts of an address, or on none.
func listenTCP(ctx context.Context, a Address, hosts []string) ([]net.Listener, error) {
	var all []net.Listener
	port := a.Port
	for _, host := range hosts {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		switch {
		case err == nil:
			all = append(all, l)
			port = uint16(l.Addr().(*net.TCPAddr).Port) // if it was 0
		case a.Host == "localhost" && host == "::1" && len(all) > 0 && !errors.Is(err, syscall.EADDRINUSE):
			// The machine has no IPv6.
		default:
			for _, l := range all {
				l.Close()
			}
			return nil, explain(err)
		}
	}
	return all, nil
}

// hostsOf returns the IP addresses to listen on.
func hostsOf(ctx context.Context, a Address) ([]string, error) {
	switch {
	case a.Host == "localhost":
		return []string{"127.0.0.1", "::1"}, nil
	case a.Host == "" || net.ParseIP(a.Host) != nil:
		return []string{a.Host}, nil
	}
	return net.DefaultResolver.LookupHost(ctx, a.Host)
}

// explain adds the fix to common errors.
func explain(err error) error {
	var call *net.OpError
	if errors.As(err, &call) {
		err = call.Err // without the address, which the caller names
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w; another program, perhaps a PostgreSQL, listens there: choose another port", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w; this machine does not have the address", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w; choose a port of 1024 or higher", err)
	}
	return err
}
