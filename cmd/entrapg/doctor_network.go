package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// An endpoint is one of a DSN's hosts, with what is known about it so far.
type endpoint struct {
	host      string
	port      uint16
	tls       *tls.Config
	network   string // of Go's
	addresses []string
	conn      net.Conn
	gone      bool // it cannot be reached
}

func (e *endpoint) String() string {
	if e.network == "unix" {
		return e.host
	}
	return net.JoinHostPort(e.host, fmt.Sprint(e.port))
}

func endpointsOf(config *pgx.ConnConfig) []*endpoint {
	var all []*endpoint
	add := func(host string, port uint16, tls *tls.Config) {
		if n := len(all); n > 0 && all[n-1].host == host && all[n-1].port == port {
			return
		}
		network, _ := pgconn.NetworkAddress(host, port)
		all = append(all, &endpoint{host: host, port: port, tls: tls, network: network})
	}
	add(config.Host, config.Port, config.TLSConfig)
	for _, f := range config.Fallbacks {
		add(f.Host, f.Port, f.TLSConfig)
	}
	return all
}

// each does a step for every host that is still in the running. The step fails
// where that leaves none; else what is wrong with one is a warning.
func (d *diagnosis) each(f *finding, step func(*endpoint) *trouble) *trouble {
	var first *trouble
	alive := false
	for _, e := range d.endpoints {
		if e.gone {
			continue
		}
		t := step(e)
		e.gone = t != nil
		alive = alive || t == nil
		first = cmp.Or(first, t)
	}
	if alive {
		if first != nil {
			f.warn(first)
		}
		return nil
	}
	return first
}

// limited bounds a step, as connect_timeout bounds a login.
func (d *diagnosis) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	const usual = 10 * time.Second
	return context.WithTimeout(ctx, cmp.Or(d.login.Config.ConnectTimeout, usual))
}

func (d *diagnosis) lookUp(ctx context.Context, f *finding) *trouble {
	return d.each(f, func(e *endpoint) *trouble {
		if _, err := netip.ParseAddr(e.host); err == nil || e.network == "unix" {
			e.addresses = []string{e.host}
			return nil
		}
		ctx, cancel := d.limited(ctx)
		defer cancel()
		addresses, err := d.login.Config.LookupFunc(ctx, e.host)
		if err != nil {
			return d.unknownHost(e, err)
		}
		e.addresses = addresses
		f.note("%s is %s", e.host, describe(addresses, d.login.Azure))
		return nil
	})
}

// describe lists addresses, and tells whether they are reached from everywhere.
func describe(addresses []string, azure bool) string {
	text := strings.Join(addresses, ", ")
	addr, err := netip.ParseAddr(addresses[0])
	switch {
	case err != nil:
		return text
	case addr.IsLoopback():
		return text + ", this machine"
	case addr.IsPrivate() && azure:
		return text + ", private: a private endpoint or a virtual network"
	case addr.IsPrivate():
		return text + ", private"
	default:
		return text + ", public"
	}
}

func (d *diagnosis) unknownHost(e *endpoint, err error) *trouble {
	t := &trouble{Said: err.Error(), Fix: []string{"nslookup " + shell(e.host)}}
	var dns *net.DNSError
	switch {
	case !errors.As(err, &dns) || !dns.IsNotFound:
		t.Means = "the name server of this machine gave no answer about " + e.host + ": check the network, and a VPN if there is one"
	case d.login.Azure:
		t.Means = "there is no such name. It is misspelt, or the server was deleted, or it has a private endpoint " +
			"whose DNS zone is not linked to this network"
		t.Fix = []string{"az postgres flexible-server list --query '[].fullyQualifiedDomainName' --output tsv"}
	default:
		t.Means = "there is no such name: check how it is spelt in the DSN"
	}
	return t
}

func (d *diagnosis) dial(ctx context.Context, f *finding) *trouble {
	return d.each(f, func(e *endpoint) *trouble {
		var err error
		for _, address := range e.addresses {
			ctx, cancel := d.limited(ctx)
			start := time.Now()
			network, target := pgconn.NetworkAddress(address, e.port)
			e.conn, err = d.login.Config.DialFunc(ctx, network, target)
			cancel()
			if err == nil {
				f.note("%s in %s", target, milliseconds(time.Since(start)))
				return nil
			}
		}
		return d.unreachable(e, err)
	})
}

func (d *diagnosis) unreachable(e *endpoint, err error) *trouble {
	t := &trouble{Said: err.Error()}
	server, azure := serverName(e.host), d.login.Azure
	switch {
	case e.network == "unix":
		t.Means = "no server listens on this socket: check host and port, and that the server runs"
	case errors.Is(err, errRefused) && azure:
		t.Means = fmt.Sprintf("nothing listens on port %d: Azure's servers have PostgreSQL on 5432 and PgBouncer, "+
			"where it is on, on 6432. Or the server is stopped", e.port)
		t.Fix = []string{"az postgres flexible-server start --name " + server + " --resource-group " + resourceGroup(server)}
	case errors.Is(err, errRefused):
		t.Means = fmt.Sprintf("nothing listens on port %d of %s: check the port, and that the server runs", e.port, e.host)
		t.Fix = []string{fmt.Sprintf("pg_isready -h %s -p %d", shell(e.host), e.port)}
	case isTimeout(err) && azure:
		t.Means = "nothing came back: the server's firewall lets this machine's address not in, or, where the " +
			"server has private access, this machine is outside its network. Or the server is stopped"
		t.Fix = firewall(server)
	case isTimeout(err):
		t.Means = "nothing came back: a firewall drops the packets, or the address is nobody's"
		t.Fix = []string{fmt.Sprintf("pg_isready -h %s -p %d", shell(e.host), e.port)}
	default:
		t.Means = "the network does not lead there: check it, and a VPN if there is one"
	}
	return t
}

// firewall lets an address in.
func firewall(server string) []string {
	return []string{
		"# with this machine's public address for MY_ADDRESS",
		"az postgres flexible-server firewall-rule create --name " + server + " --resource-group " + resourceGroup(server) +
			" --rule-name doctor --start-ip-address MY_ADDRESS --end-ip-address MY_ADDRESS",
	}
}

// serverName is what Azure calls the server. It stands inside quotes too, so that
// no other characters than those of a name will do.
func serverName(host string) string {
	if name, _, _ := strings.Cut(host, "."); serverPart.MatchString(name) {
		return name
	}
	return "SERVER"
}

// resourceGroup is a command that finds the one of a server.
func resourceGroup(server string) string {
	return `"$(az postgres flexible-server list --query "[?name=='` + server + `'].resourceGroup" --output tsv)"`
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func (d *diagnosis) encrypt(ctx context.Context, f *finding) *trouble {
	return d.each(f, func(e *endpoint) *trouble {
		defer e.conn.Close()
		if e.tls == nil {
			f.note("none, as sslmode=disable has it")
			return nil
		}
		ctx, cancel := d.limited(ctx)
		defer cancel()
		deadline, _ := ctx.Deadline()
		e.conn.SetDeadline(deadline)
		if d.login.Config.SSLNegotiation != "direct" {
			if t := d.requestTLS(e); t != nil {
				return t
			}
		}
		var chain []*x509.Certificate
		conn := tls.Client(e.conn, remember(e.tls, &chain))
		if err := conn.HandshakeContext(ctx); err != nil {
			return d.noTLS(e, err, chain)
		}
		state := conn.ConnectionState()
		verified := "verified"
		if e.tls.InsecureSkipVerify && e.tls.VerifyPeerCertificate == nil && e.tls.VerifyConnection == nil {
			verified = "not verified, as sslmode=" + d.login.SSLMode + " has it"
		}
		leaf := state.PeerCertificates[0]
		f.note("%s, %s; certificate for %s", tls.VersionName(state.Version), verified, namesOf(leaf))
		root := leaf.Issuer
		for _, chain := range state.VerifiedChains {
			root = chain[len(chain)-1].Subject
		}
		f.note("until %s, root %s", leaf.NotAfter.UTC().Format(time.DateOnly), cmp.Or(root.CommonName, root.String()))
		return nil
	})
}

// requestTLS asks the server for TLS as PostgreSQL's protocol has it.
func (d *diagnosis) requestTLS(e *endpoint) *trouble {
	const sslRequest = 80877103
	message := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), sslRequest)
	answer := make([]byte, 1)
	_, err := e.conn.Write(message)
	if err == nil {
		_, err = io.ReadFull(e.conn, answer)
	}
	switch {
	case isTimeout(err):
		return &trouble{Said: err.Error(), Means: "something took the connection and says nothing: no PostgreSQL, " +
			"a proxy whose server is gone, or a server that is overloaded"}
	case err != nil:
		return &trouble{Said: err.Error(), Means: "the connection was taken and cut at once: by a proxy or a " +
			"firewall in between, or by something that is no PostgreSQL"}
	case answer[0] == 'S':
		return nil
	case answer[0] == 'N' && d.login.Azure:
		return &trouble{Said: "the server has no TLS", Means: "Azure's servers always have it: something in " +
			"between answers in the server's place, or the name leads to another machine"}
	case answer[0] == 'N':
		return &trouble{
			Said: "the server has no TLS", Means: "a token goes over TLS, or stays on this machine: turn TLS on in " +
				"the server, or, for a server on this machine alone, set sslmode=disable in the DSN",
			Fix: []string{"alter system set ssl = on;  select pg_reload_conf();"},
		}
	default:
		return &trouble{Said: fmt.Sprintf("the answer to a request for TLS begins with %q", answer), Means: "this " +
			"is no PostgreSQL: check host and port"}
	}
}

// remember is a configuration that keeps the certificates which the server shows,
// and is as strict as the one it is made from.
func remember(config *tls.Config, chain *[]*x509.Certificate) *tls.Config {
	config = config.Clone()
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(raw [][]byte, verified [][]*x509.Certificate) error {
		for _, der := range raw {
			if c, err := x509.ParseCertificate(der); err == nil {
				*chain = append(*chain, c)
			}
		}
		if verify == nil {
			return nil
		}
		return verify(raw, verified)
	}
	return config
}

func (d *diagnosis) noTLS(e *endpoint, err error, chain []*x509.Certificate) *trouble {
	t := &trouble{Said: err.Error()}
	var unverified *tls.CertificateVerificationError
	if errors.As(err, &unverified) {
		chain = unverified.UnverifiedCertificates
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown) && len(chain) > 0:
		last := chain[len(chain)-1]
		root := cmp.Or(last.Issuer.CommonName, last.Issuer.String())
		switch given := d.login.Settings.Value("sslrootcert"); {
		case given != "" && given != "system":
			t.Means = "the server's certificate leads to the root " + root + ", which is not in " + given + ": " +
				"name the file that has it, or leave sslrootcert out for the system's roots"
		case d.login.Azure:
			t.Means = "the root " + root + " is missing on this machine, as in slim container images, which have " +
				"no roots at all: install the system's, in a Dockerfile for example"
			t.Fix = []string{"apt-get update && apt-get install -y ca-certificates", "# or, on Alpine", "apk add ca-certificates"}
		default:
			t.Means = "the server's certificate leads to the root " + root + ", which this machine does not trust: " +
				"get the root's certificate as a file from the server's administrator, and set sslrootcert to that file"
			t.Fix = []string{"sslrootcert=ROOT_FILE"}
		}
	case errors.As(err, &name) && len(chain) > 0:
		t.Means = "the certificate is for " + namesOf(chain[0]) + ", and not for " + cmp.Or(e.tls.ServerName, e.host)
		if !verifies(chain, e.tls.RootCAs) {
			t.Means += ", and no trusted root vouches for it: another server may have taken the place of yours. " +
				"Check host, port and the network, and do not use the names in this certificate"
			break
		}
		t.Means += ": set host to the server's own name. Azure's servers keep theirs behind a private endpoint " +
			"too, so an address, an alias or a tunnel's name will not do"
		if host := hostToUse(chain[0], e.tls.RootCAs != nil); host != "" {
			t.Fix = []string{"host=" + host}
		}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && len(chain) > 0:
		leaf := chain[0]
		t.Means = fmt.Sprintf("the certificate is good from %s to %s, and this machine's clock says %s: the server "+
			"needs a new one, or the clock is wrong",
			leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly), time.Now().UTC().Format(time.DateOnly))
		t.Fix = []string{"date -u", "openssl s_client -starttls postgres -connect " + shell(e.String()) + " " +
			"</dev/null | openssl x509 -noout -dates"}
	case isTimeout(err):
		t.Means = "the server began with TLS and fell silent: a firewall that looks into TLS does so, or a server that is overloaded"
	default:
		t.Means = "the two do not agree on TLS: a proxy in between that looks into it does so, or a server that is very old"
		t.Fix = []string{"openssl s_client -starttls postgres -connect " + shell(e.String()) + " </dev/null"}
	}
	return t
}

// namesOf lists the names that a certificate is for, the first few of many.
func namesOf(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return cmp.Or(c.Subject.CommonName, "nobody") + ", in the old form"
	}
	const few = 3
	if len(names) > few {
		return strings.Join(names[:few], ", ") + fmt.Sprintf(" and %d more", len(names)-few)
	}
	return strings.Join(names, ", ")
}
