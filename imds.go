package entrapg

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// imds is Azure's Instance Metadata Service, from which a virtual machine has
// its tokens: the same address on all of them, reached without leaving the host.
// https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
const (
	imdsHost    = "169.254.169.254"
	imdsTimeout = 2 * time.Second // for the connection, which takes milliseconds where there is one
)

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// newHTTPClient returns what a credential that a DSN chose asks for its tokens
// with. It differs from azidentity's own client where there is no IMDS: it gives
// up after imdsTimeout and says so, instead of trying for minutes. Nor does it
// ask a proxy for IMDS, which would answer for another machine, or not at all.
//
// It is a plain client around a plain transport, as azidentity demands on
// Service Fabric.
func newHTTPClient(dial dialFunc) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if r.URL.Hostname() == imdsHost {
				return nil, nil
			}
			return http.ProxyFromEnvironment(r)
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, _, _ := net.SplitHostPort(address); host != imdsHost {
				return dial(ctx, network, address)
			}
			ctx, cancel := context.WithTimeout(ctx, imdsTimeout)
			defer cancel()
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, noEndpoint{err}
			}
			return conn, nil
		},
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second}, // finds out a connection that has died
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}}
}

const noEndpointAnswers = "no managed-identity endpoint answers: outside Azure there is none"

// noEndpoint reports that there is no IMDS here.
type noEndpoint struct{ err error }

func (e noEndpoint) Error() string { return fmt.Sprintf("%s (%v)", noEndpointAnswers, e.err) }
func (e noEndpoint) Unwrap() error { return e.err }

// NonRetriable keeps azcore from trying again.
func (noEndpoint) NonRetriable() {}
