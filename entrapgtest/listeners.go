package entrapgtest

import (
	"context"
	"net"
)

// listeners are the network listeners of a server. With a Primary, those of the tenant
// are nil.
type listeners struct{ server, entra, identity net.Listener }

// openListeners listens on the addresses in config.
func openListeners(ctx context.Context, config Config) (_ *listeners, err error) {
	l := &listeners{}
	defer func() {
		if err != nil {
			_ = l.close()
		}
	}()
	listen := func(field, addr string) (net.Listener, error) {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, &ConfigError{Field: field, Err: err}
		}
		return l, nil
	}
	if l.server, err = listen("Addr", config.Addr); err != nil {
		return nil, err
	}
	if config.Primary != nil {
		return l, nil
	}
	if l.entra, err = listen("TenantAddr", config.TenantAddr); err != nil {
		return nil, err
	}
	l.identity, err = listen("IdentityAddr", config.IdentityAddr)
	return l, err
}

// encrypted returns the listeners whose clients use TLS.
func (l *listeners) encrypted() []net.Listener {
	if l.entra == nil {
		return []net.Listener{l.server}
	}
	return []net.Listener{l.server, l.entra}
}

// close closes the listeners that are still open.
func (l *listeners) close() error {
	for _, listener := range []net.Listener{l.server, l.entra, l.identity} {
		if listener != nil {
			_ = listener.Close()
		}
	}
	return nil
}
