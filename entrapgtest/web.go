package entrapgtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/entrapg/entrapg/internal/connlimit"
)

// maxRequest bounds the bytes of a request. It is larger than any token.
const maxRequest = 1 << 20

// maxConnections bounds the connections of a webServer that are open at once.
const maxConnections = 1024

// A webServer serves a tenant: Entra over HTTPS, and managed identity endpoints over
// plain HTTP.
type webServer struct {
	entra, identity net.Listener
	hostnames       hostnames
	certificate     *certificate

	http        http.Server
	connections sync.WaitGroup
	client      *http.Client
}

func newWebServer(entra, identity net.Listener, names hostnames, c *certificate) *webServer {
	w := &webServer{entra: entra, identity: identity, hostnames: names, certificate: c}
	w.client = &http.Client{Transport: w.transport()}
	return w
}

// site returns where clients find the tenant.
func (w *webServer) site() site {
	return site{
		url:         httpsURL(w.hostnames.address(w.entra)),
		identityURL: "http://" + w.hostnames.address(w.identity),
		thumbprint:  fmt.Sprintf("%x", sha1.Sum(w.certificate.tls.Certificates[0].Certificate[0])),
		client:      w.client,
	}
}

// serve serves the tenant until close or until ctx ends.
func (w *webServer) serve(ctx context.Context, t *Tenant) {
	entra, identity := entraRoutes(t), identityRoutes(t)
	w.http = http.Server{
		Handler: http.MaxBytesHandler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			receive(rw, r)
			if r.TLS != nil {
				entra.ServeHTTP(rw, r)
			} else {
				identity.ServeHTTP(rw, r)
			}
		}), maxRequest),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: loginTimeout,
		IdleTimeout:       loginTimeout,
		ErrorLog:          log.New(io.Discard, "", 0),
		// http.Server.Close does not wait for handlers.
		ConnState: func(conn net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				w.connections.Add(1)
				if ctx.Err() != nil { // close may have missed it
					conn.Close()
				}
			case http.StateClosed, http.StateHijacked:
				w.connections.Done()
			}
		},
	}
	limit := &connlimit.Limit{Max: maxConnections}
	limit.Apply(&w.http)
	config := w.certificate.tls.Clone()
	config.NextProtos = []string{"http/1.1"} // an HTTP/2 stream has no TCP connection to reset
	for _, l := range []net.Listener{tls.NewListener(limit.Listener(w.entra), config), limit.Listener(w.identity)} {
		w.connections.Go(func() { _ = w.http.Serve(l) })
	}
}

// receive reads the body of a request, within a deadline. http.Server.ReadTimeout would
// also end a request that an injected fault delays for longer.
func receive(w http.ResponseWriter, r *http.Request) {
	controller := http.NewResponseController(w)
	_ = controller.SetReadDeadline(time.Now().Add(loginTimeout))
	body, err := io.ReadAll(r.Body)
	if err == nil {
		_ = controller.SetReadDeadline(time.Time{})
	}
	r.Body = io.NopCloser(bytes.NewReader(body)) // parameters that are missing are reported
}

// close closes all connections. ctx of serve must have ended.
func (w *webServer) close() {
	w.http.Close()
	w.connections.Wait()
	w.client.CloseIdleConnections()
}

// transport returns a transport that trusts the certificate. It reaches the two listeners
// by their local addresses: their public name may not resolve in this process.
func (w *webServer) transport() *http.Transport {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AddCert(w.certificate.authority)
	local := map[string]string{}
	for _, l := range []net.Listener{w.entra, w.identity} {
		local[w.hostnames.address(l)] = localAddr(l)
	}
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		Proxy: func(r *http.Request) (*url.URL, error) {
			if local[net.JoinHostPort(r.URL.Hostname(), cmp.Or(r.URL.Port(), "443"))] != "" {
				return nil, nil
			}
			return http.ProxyFromEnvironment(r)
		},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, cmp.Or(local[addr], addr))
		},
	}
}
