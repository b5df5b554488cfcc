// Package monitor serves Kubernetes probes and Prometheus metrics over HTTP.
package monitor

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/entrapg/entrapg/internal/connlimit"
)

// Pages are the functions that a [Server] calls to answer requests. They must be
// safe for concurrent use.
type Pages struct {
	Started func() bool    // for /startup
	Ready   func() error   // for /readiness; the error is shown
	Metrics func(*Metrics) // for /metrics
}

// A Server answers over HTTP. It is created by [Serve].
type Server struct{ http http.Server }

// maxConnections bounds the connections that are open at once.
const maxConnections = 512

// Serve answers on a listener, which it closes, until Close. On a loopback address, it
// rejects requests whose Host is another name than localhost: the script of a web page
// can send them from a browser on this machine, through a name that resolves to the
// address.
func Serve(l net.Listener, pages Pages) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /startup", func(w http.ResponseWriter, _ *http.Request) {
		if !pages.Started() {
			answer(w, http.StatusServiceUnavailable, "starting")
			return
		}
		answer(w, http.StatusOK, "started")
	})
	mux.HandleFunc("GET /liveness", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readiness", func(w http.ResponseWriter, _ *http.Request) {
		if err := pages.Ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var m Metrics
		pages.Metrics(&m)
		w.Header().Set("Content-Type", ContentType)
		w.Write(m.text)
	})
	var handler http.Handler = mux
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsLoopback() {
		handler = localOnly(mux)
	}
	s := &Server{http.Server{
		Handler: handler, MaxHeaderBytes: 8 << 10,
		ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}}
	limit := &connlimit.Limit{Max: maxConnections}
	limit.Apply(&s.http)
	go s.http.Serve(limit.Listener(l))
	return s
}

// localOnly passes on requests whose Host is an IP address, localhost or missing.
func localOnly(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := (&url.URL{Host: r.Host}).Hostname()
		if _, err := netip.ParseAddr(host); err != nil && host != "" && !strings.EqualFold(host, "localhost") {
			answer(w, http.StatusMisdirectedRequest, "the Host header must be an IP address or localhost")
			return
		}
		handler.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n")
}

// Close closes the listener, lets requests in flight end for a second, and closes
// all connections.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) == nil {
		return nil
	}
	return s.http.Close()
}
