// Package certfile reads a TLS certificate and its key from files, and reads them
// again when they change, for example because certbot has renewed the certificate.
package certfile

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// A Pair is a certificate and its key. It is created by [Load] and safe for
// concurrent use.
type Pair struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	tried   [2]version // of the files that were read last, even if they were invalid
	logged  [2]version // of the files whose failure was logged last
}

// A version distinguishes two contents of a file without reading them.
type version struct {
	modified time.Time
	size     int64
}

// Load reads the files. Renewals and their failures are logged.
func Load(certFile, keyFile string, logger *slog.Logger) (*Pair, error) {
	p := &Pair{certFile: certFile, keyFile: keyFile, logger: logger}
	p.tried = p.versions()
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	if now := time.Now(); now.After(cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("the certificate in %s expired at %s; renew it",
			certFile, cert.Leaf.NotAfter.Format(time.RFC3339))
	}
	p.current = &cert
	return p, nil
}

// GetCertificate returns the current certificate, for [tls.Config]. It reads the
// files again if they have changed, and keeps the certificate if that fails.
func (p *Pair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.versions()
	if found == p.tried {
		return p.current, nil
	}
	cert, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err != nil {
		// The two files may be written one after the other: the second change causes
		// another try. If a file cannot be read, each handshake tries again, because
		// permissions can change without a change of the file.
		if unreadable := new(fs.PathError); !errors.As(err, &unreadable) {
			p.tried = found
		}
		if found != p.logged {
			p.logged = found
			p.logger.Warn("the TLS certificate has changed and is invalid; the last one remains in use",
				"file", p.certFile, "error", err)
		}
		return p.current, nil
	}
	p.tried, p.logged = found, [2]version{}
	if slices.EqualFunc(cert.Certificate, p.current.Certificate, bytes.Equal) {
		p.current = &cert
		p.logger.Info("read the TLS certificate again; it has not changed", "file", p.certFile)
		return p.current, nil
	}
	p.current = &cert
	p.logger.Info("read a new TLS certificate", "file", p.certFile, "expires", cert.Leaf.NotAfter)
	return p.current, nil
}

// Reload reads the files again even if they seem not to have changed.
func (p *Pair) Reload() {
	p.mu.Lock()
	p.tried, p.logged = [2]version{}, [2]version{}
	p.mu.Unlock()
	_, _ = p.GetCertificate(nil) // logs failures
}

func (p *Pair) versions() (found [2]version) {
	for i, name := range []string{p.certFile, p.keyFile} {
		if info, err := os.Stat(name); err == nil {
			found[i] = version{info.ModTime(), info.Size()}
		}
	}
	return found
}
