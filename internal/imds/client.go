// Package imds creates the HTTP client for managed identity endpoints. It differs
// from azidentity's own client in two ways: it fails in seconds on a machine that
// has no Instance Metadata Service, where azidentity retries for minutes; and it
// never sends a request for a metadata endpoint through a proxy. A Monitor reports
// the progress of a request.
package imds

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"time"
)

// host is the Instance Metadata Service of Azure's virtual machines: the same
// address on all of them, reached without leaving the physical host.
// https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
const host = "169.254.169.254"

// Timeout bounds the time to connect to the Instance Metadata Service, which takes
// milliseconds if there is one.
const Timeout = 2 * time.Second

// NewClient returns a client for a credential that dials with dial.
//
// It is a plain client around a plain transport, as azidentity requires on
// Service Fabric.
func NewClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if isMetadata(r.URL.Hostname()) {
				return nil, nil
			}
			return http.ProxyFromEnvironment(r)
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if name, _, _ := net.SplitHostPort(address); name != host {
				return dial(ctx, network, address)
			}
			ctx, cancel := context.WithTimeout(ctx, Timeout)
			defer cancel()
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, &noEndpointError{err}
			}
			return conn, nil
		},
		ForceAttemptHTTP2: true,
		// Pings detect a connection that has died.
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}}
}
