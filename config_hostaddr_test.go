package entrapg_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg"
)

// The address in hostaddr is dialed without a DNS lookup, and the certificate is verified against host.
func TestConfig_HostaddrReplacesLookup(t *testing.T) {
	clearSettings(t)
	for _, test := range []struct {
		dsn      string
		variable string // PGHOSTADDR
		dialed   string
		names    string
	}{
		{"host=db.example.com hostaddr=192.0.2.1", "", "192.0.2.1:5432", "db.example.com"},
		{"postgres://db.example.com:6432/shop?hostaddr=2001:db8::1", "", "[2001:db8::1]:6432", "db.example.com"},
		{
			"host=a.example.com,b.example.com port=1,2 hostaddr=192.0.2.1,192.0.2.2", "",
			"192.0.2.1:1 192.0.2.2:2", "a.example.com b.example.com",
		},
		{"host=a.example.com,b.example.com hostaddr=,192.0.2.2", "", "198.51.100.1:5432 192.0.2.2:5432", "a.example.com b.example.com"},
		{"hostaddr=192.0.2.1,192.0.2.2", "", "192.0.2.1:5432 192.0.2.2:5432", "192.0.2.1 192.0.2.2"},
		{"host=db.example.com", "", "198.51.100.1:5432", "db.example.com"},
		{"host=db.example.com", "192.0.2.1", "192.0.2.1:5432", "db.example.com"},
		{"host=a.example.com,b.example.com", ",192.0.2.2", "198.51.100.1:5432 192.0.2.2:5432", "a.example.com b.example.com"},
		{"host=db.example.com hostaddr=192.0.2.2", "192.0.2.1", "192.0.2.2:5432", "db.example.com"},
		{"host=db.example.com hostaddr=''", "192.0.2.1", "198.51.100.1:5432", "db.example.com"},
		{"user=app", "192.0.2.1", "192.0.2.1:5432", "192.0.2.1"},
	} {
		t.Setenv("PGHOSTADDR", test.variable)
		var dialed, names []string
		network := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
			c.LookupFunc = func(_ context.Context, host string) ([]string, error) {
				if net.ParseIP(host) != nil {
					return []string{host}, nil
				}
				return []string{"198.51.100.1"}, nil
			}
			c.DialFunc = func(_ context.Context, _, address string) (net.Conn, error) {
				dialed = append(dialed, address)
				return nil, errors.New("unreachable")
			}
		})
		err := connect(t,
			entrapg.NewConnector(test.dsn+appUser(test.dsn), entrapg.WithCredential(&numbered{life: time.Hour}), network))
		var unreachable *pgconn.ConnectError
		if !errors.As(err, &unreachable) || strings.Join(dialed, " ") != test.dialed {
			t.Errorf("%s: dialed %v, error %v", test.dsn, dialed, err)
			continue
		}
		config, err := configOf(t, test.dsn)
		if err != nil {
			t.Errorf("%s: %v", test.dsn, err)
			continue
		}
		names = append(names, config.TLSConfig.ServerName)
		for _, f := range config.Fallbacks {
			names = append(names, f.TLSConfig.ServerName)
		}
		if strings.Join(names, " ") != test.names {
			t.Errorf("%s: verifies %v", test.dsn, names)
		}
	}
}

// appUser returns a setting for the user, in the form of the DSN.
func appUser(dsn string) string {
	if strings.Contains(dsn, "://") {
		return "&user=app"
	}
	return " user=app"
}

// hostaddr cannot be used to send the token in plaintext to another machine. entrapg
// exec passes it to libpq, which does not check where a host leads.
func TestConfig_HostaddrOfLocalhostIsCheckedForPlaintext(t *testing.T) {
	clearSettings(t)
	for dsn, setting := range map[string]string{
		"host=localhost hostaddr=192.0.2.1 user=app sslmode=disable":            "hostaddr",
		"host=127.0.0.1,127.0.0.2 hostaddr=,192.0.2.1 user=app sslmode=disable": "hostaddr",
		"host=localhost hostaddr=::ffff:192.0.2.1 user=app sslmode=disable":     "hostaddr",
		"host=localhost hostaddr=127.0.0.1 user=app sslmode=disable":            "host", // only the peer is not local
		"host=localhost user=app sslmode=disable":                               "host",
	} {
		dialed := false
		peer := entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
			c.DialFunc = func(context.Context, string, string) (net.Conn, error) {
				dialed = true
				client, server := net.Pipe()
				server.Close()
				return addressed{client, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5432}}, nil
			}
		})
		err := connect(t, entrapg.NewConnector(dsn, entrapg.WithCredential(&numbered{life: time.Hour}), peer))
		var config *entrapg.ConfigError
		if !errors.As(err, &config) || config.Setting != setting || dialed != (setting == "host") {
			t.Errorf("%s: got %v, dialed %t, want a ConfigError for %s", dsn, err, dialed, setting)
		}
	}
}

// addressed is a connection to a peer with the given address.
type addressed struct {
	net.Conn
	peer net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.peer }
