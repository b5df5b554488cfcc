package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/internal/inspect"
	"github.com/entrapg/entrapg/internal/pgwire"
)

// tlsStep encrypts the connections and shows the certificates.
type tlsStep struct{ *state }

func (s tlsStep) encrypt(ctx context.Context, f *finding) *problem {
	return s.each(f, func(e *endpoint) *problem {
		defer e.conn.Close()
		if e.tls == nil {
			f.note("none, because of sslmode=disable")
			return nil
		}
		// Ctrl-C ends the wait. The connection reports its deadline itself.
		stop := context.AfterFunc(ctx, func() { e.conn.Close() })
		defer stop()
		ctx, cancel := s.limited(ctx)
		defer cancel()
		deadline, _ := ctx.Deadline()
		e.conn.SetDeadline(deadline)
		if s.login.Config.SSLNegotiation != "direct" {
			if p := s.requestTLS(e); p != nil {
				return p
			}
		}
		var chain []*x509.Certificate
		conn := tls.Client(e.conn, remember(e.tls, &chain))
		if err := conn.HandshakeContext(ctx); err != nil {
			return s.noTLS(e, err, chain)
		}
		state := conn.ConnectionState()
		verified := "verified"
		if e.tls.InsecureSkipVerify && e.tls.VerifyPeerCertificate == nil && e.tls.VerifyConnection == nil {
			verified = "not verified, because of sslmode=" + s.login.SSLMode
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

// requestTLS requests TLS from the server, and explains an answer that does not begin it.
func (s tlsStep) requestTLS(e *endpoint) *problem {
	answer, err := pgwire.RequestTLS(e.conn)
	switch {
	case isTimeout(err):
		return s.silence(e, "accepts the connection and does not answer",
			"this is not PostgreSQL, or a proxy cannot reach its server, or the server is overloaded")
	case err != nil:
		return &problem{
			Error: err.Error(),
			Explanation: "the server closed the connection at once: a proxy or a firewall is in between, or this is not PostgreSQL; " +
				"check host and port",
			Fix: s.fixPort(e),
		}
	case answer == 'S':
		return nil
	case answer == 'N':
		return s.noServerTLS(e)
	default:
		return &problem{
			Error:       fmt.Sprintf("the answer to a request for TLS begins with %q", []byte{answer}),
			Explanation: "this is not PostgreSQL; check host and port",
			Fix:         s.fixPort(e),
		}
	}
}

// fixPort returns the lines that find and set the port of PostgreSQL.
func (s tlsStep) fixPort(e *endpoint) []string {
	lines := []string{"# shows whether PostgreSQL accepts connections", e.isReady()}
	if e.port != 5432 {
		lines = append(lines, fixes(s).set("port", "5432")...)
	}
	return lines
}

// silence reports an endpoint that does not answer in time.
func (s tlsStep) silence(e *endpoint, outcome, explanation string) *problem {
	return &problem{
		Error: fmt.Sprintf("%v %s within %v", e, outcome, s.answerTimeout()), Explanation: explanation,
		Fix: s.fixPort(e),
	}
}

// noServerTLS reports a server without TLS. Tokens and passwords may be sent without
// it on this machine only.
func (s tlsStep) noServerTLS(e *endpoint) *problem {
	p := &problem{Error: "the server does not support TLS"}
	turnOn := []string{
		"-- as a superuser of the server, which needs ssl_cert_file and ssl_key_file",
		"alter system set ssl = on;", "select pg_reload_conf();",
	}
	disable := fixes(s).set("sslmode", "disable")
	switch {
	case s.login.Azure:
		p.Explanation = "Azure's servers always support TLS: another machine answers under the server's name. Check the network; " +
			"no token was sent"
		p.Fix = []string{"# shows the address that answers", "nslookup " + quote.Shell(e.host)}
	case inspect.IsLocal(e.host) && !s.login.Entra():
		p.Explanation = "a server on this machine needs no TLS for a login with a password"
		p.Fix = disable
	case inspect.IsLocal(e.host):
		p.Explanation = "a token is sent over TLS only, unless the server is on this machine: turn on TLS in the server, or, if " +
			"this is not a tunnel to another machine, set sslmode=disable" + s.perhapsProxy()
		p.Fix = append(append(turnOn, "# or, if the server itself is on this machine:"), disable...)
	case !s.login.Entra():
		p.Explanation = "without TLS, others on the network can read the password; turn on TLS in the server"
		p.Fix = turnOn
	default:
		p.Explanation = "a token is sent over TLS only; turn on TLS in the server"
		p.Fix = turnOn
	}
	return p
}

// remember returns a copy of a configuration that also stores the certificates that
// the server presents.
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

func (s tlsStep) noTLS(e *endpoint, err error, chain []*x509.Certificate) *problem {
	p := &problem{Error: err.Error()}
	fix := fixes(s)
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
		switch given := s.login.Settings.Value("sslrootcert"); {
		case given != "" && given != "system":
			p.Explanation = "the server's certificate chains to the root " + root + ", which is not in " + given +
				" (sslrootcert, from " + s.origin("sslrootcert") + "); set sslrootcert to a file with that root, " +
				"or remove it for the roots of the system"
			p.Fix = append(fix.set("sslrootcert", "ROOT_FILE"),
				append([]string{"# or, for the roots of the system:"}, fix.drop("sslrootcert")...)...)
		case s.login.Azure:
			p.Explanation = "the root " + root + " is missing on this machine, as in slim container images, " +
				"which have no roots; install the system's roots, for example in the Dockerfile"
			p.Fix = installRoots()
		default:
			p.Explanation = "the server's certificate chains to the root " + root + ", which this machine does not trust; " +
				"get the root's certificate as a file from the server's administrator, and set sslrootcert to that file"
			p.Fix = fix.set("sslrootcert", "ROOT_FILE")
		}
	case errors.As(err, &name) && len(chain) > 0:
		p.Explanation = "the certificate is for " + namesOf(chain[0]) + ", and not for " + cmp.Or(e.tls.ServerName, e.host)
		if !verifies(chain, e.tls.RootCAs) {
			p.Explanation += ", and it does not chain to a trusted root: another server may be impersonating yours. " +
				"Check host, port and the network, and do not use the names in this certificate"
			p.Fix = s.showCertificate(e)
			break
		}
		p.Explanation += "; set host to the server's own name. Azure's servers keep their name behind a private endpoint, so " +
			"an address, an alias or the name of a tunnel cannot be verified"
		p.Fix = s.showCertificate(e)
		if host := hostToUse(chain[0], e.tls.RootCAs != nil); host != "" {
			p.Fix = fix.set("host", host)
		}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && len(chain) > 0:
		leaf := chain[0]
		p.Explanation = fmt.Sprintf("the certificate is valid from %s to %s, and this machine's clock shows %s: the server "+
			"needs a new certificate, or the clock is wrong",
			leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly), time.Now().UTC().Format(time.DateOnly))
		p.Fix = []string{"date -u", "openssl s_client -starttls postgres -connect " + quote.Shell(e.String()) + " " +
			"</dev/null | openssl x509 -noout -dates"}
	case isTimeout(err):
		return s.silence(e, "starts the TLS handshake but does not finish it",
			"a firewall that inspects TLS is in between, or the server is overloaded")
	default:
		p.Explanation = "the server and this program do not agree on TLS: a proxy that inspects it is in between, or the server is very old"
		p.Fix = []string{"openssl s_client -starttls postgres -connect " + quote.Shell(e.String()) + " </dev/null"}
	}
	return p
}

// showCertificate returns the lines that identify a certificate whose names cannot be used.
func (s tlsStep) showCertificate(e *endpoint) []string {
	return []string{
		"# shows the certificate's fingerprint: ask the server's administrator whether it is the server's",
		"openssl s_client -starttls postgres -connect " + quote.Shell(e.String()) +
			" </dev/null | openssl x509 -noout -fingerprint -sha256",
	}
}

// namesOf lists the first few names that a certificate is for.
func namesOf(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return cmp.Or(c.Subject.CommonName, "no name") + " (as its subject, which is obsolete)"
	}
	const few = 3
	if len(names) > few {
		return strings.Join(names[:few], ", ") + fmt.Sprintf(" and %d more", len(names)-few)
	}
	return strings.Join(names, ", ")
}
