package entrapgtest

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxRequest bounds the bytes of a request. It is larger than any token.
const maxRequest = 1 << 20

// serveHTTP serves the tenant on its two listeners until Close.
func (s *Server) serveHTTP() {
	t, tenant, identity := s.Tenant, s.tenantListener, s.identityListener
	t.url, t.identityURL = httpsURL(s.reachable(tenant)), "http://"+s.reachable(identity)
	t.thumbprint = fmt.Sprintf("%x", sha1.Sum(s.certificate.tls.Certificates[0].Certificate[0]))
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AddCert(s.certificate.authority)
	t.client = &http.Client{Transport: s.transport(roots)}

	config := s.certificate.tls.Clone()
	config.NextProtos = []string{"http/1.1"} // an HTTP/2 stream has no TCP connection to reset
	entra, managed := t.endpoint(), t.identityEndpoint()
	s.http = &http.Server{
		Handler: http.MaxBytesHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.TLS != nil {
				entra.ServeHTTP(w, r)
			} else {
				managed.ServeHTTP(w, r)
			}
		}), maxRequest),
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ReadHeaderTimeout: loginTimeout,
		ErrorLog:          log.New(io.Discard, "", 0),
		// http.Server.Close does not wait for handlers.
		ConnState: func(conn net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.sessions.Add(1)
				if s.ctx.Err() != nil { // Close may have missed it
					conn.Close()
				}
			case http.StateClosed, http.StateHijacked:
				s.sessions.Done()
			}
		},
	}
	for _, l := range []net.Listener{tls.NewListener(tenant, config), identity} {
		s.sessions.Go(func() { _ = s.http.Serve(l) })
	}
}

// transport returns a transport that reaches the tenant's two listeners by their local
// addresses: their public name may not resolve in this process.
func (s *Server) transport(roots *x509.CertPool) *http.Transport {
	local := map[string]string{}
	for _, l := range []net.Listener{s.tenantListener, s.identityListener} {
		local[s.reachable(l)] = localAddr(l)
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

// respond returns a handler that sends the result of find as JSON. format returns the
// body of an error response.
func respond(find func(*http.Request) (any, error), format func(*http.Request, entraError) any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := find(r)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		var failure entraError
		switch {
		case err == nil:
		case errors.As(err, &failure):
			if failure.status == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "1")
			}
			w.WriteHeader(failure.status)
			body = format(r, failure)
		case errors.Is(err, errGarbled):
			_, _ = io.WriteString(w, `{"token_type":"Bearer","access_token":"`+truncatedToken)
			return
		case errors.Is(err, errReset):
			reset(w)
			return
		default: // the client has disconnected, or the server is closing
			panic(http.ErrAbortHandler)
		}
		_ = json.NewEncoder(w).Encode(body)
	})
}

// truncatedToken is the beginning of a token.
const truncatedToken = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsIng1dCI6ImJyb2tlbiBvZmYifQ.eyJhdWQiOiJodHRwczovL29z"

// reset closes the connection with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// secondsLeft returns the remaining lifetime in whole seconds, rounded down so that no
// client keeps a token after it has expired.
func secondsLeft(expires time.Time) int { return max(0, int(time.Until(expires)/time.Second)) }
