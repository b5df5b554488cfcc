package proxy

import (
	"errors"
	"runtime"
	"time"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/monitor"
)

// pages serves the state of a server over HTTP.
type pages struct{ *server }

func (s pages) all() monitor.Pages {
	return monitor.Pages{Started: s.started.Load, Ready: s.ready, Metrics: s.metrics}
}

// ready never dials a database.
func (s pages) ready() error {
	switch {
	case !s.started.Load():
		return errors.New("starting")
	case s.draining.Load():
		return errors.New("draining")
	}
	var failure error
	for _, u := range s.plan.upstreams {
		failure = errors.Join(failure, u.ready(s.plan.readyWithoutToken))
	}
	return failure
}

// metrics writes the counters. The number of series depends on the configuration
// alone.
func (s pages) metrics(m *monitor.Metrics) {
	if !s.started.Load() {
		return // ports that the system chooses are not known yet
	}
	var open, waiting, accepted, sessions, cancels, rejected, received, sent []monitor.Sample
	var logins []monitor.Distribution
	for i, b := range s.plan.bindings {
		stats := s.engines[i].Stats()
		labels := []string{"listen", b.address.String(), "upstream", b.upstream.name}
		add := func(to *[]monitor.Sample, value int64, more ...string) {
			*to = append(*to, monitor.Sample{Value: float64(value), Labels: append(labels[:len(labels):len(labels)], more...)})
		}
		add(&open, stats.Open)
		add(&waiting, stats.Waiting)
		add(&accepted, stats.Accepted)
		add(&sessions, stats.Sessions)
		add(&cancels, stats.Cancels)
		add(&received, stats.FromClients)
		add(&sent, stats.ToClients)
		for _, reason := range engine.Rejections {
			add(&rejected, stats.Rejected[reason], "reason", string(reason))
		}
		logins = append(logins, monitor.Distribution{Counts: stats.Login.Counts, Sum: stats.Login.Sum, Labels: labels})
	}
	m.Add("entrapg_proxy_connections", monitor.Gauge, "Client connections that are open.", open...)
	m.Add("entrapg_proxy_unauthenticated_connections", monitor.Gauge,
		"Client connections that are open and have not authenticated.", waiting...)
	if s.plan.limit != nil {
		m.Add("entrapg_proxy_max_connections", monitor.Gauge, "Value of --max-connections.",
			monitor.Sample{Value: float64(s.plan.maxConnections)})
	}
	m.Add("entrapg_proxy_connections_total", monitor.Counter, "Client connections accepted.", accepted...)
	m.Add("entrapg_proxy_sessions_total", monitor.Counter, "Logins that succeeded.", sessions...)
	m.Add("entrapg_proxy_rejections_total", monitor.Counter, "Client connections that got no session.", rejected...)
	m.Add("entrapg_proxy_cancel_requests_total", monitor.Counter, "Cancel requests forwarded.", cancels...)
	m.AddHistogram("entrapg_proxy_login_duration_seconds",
		"Time from a client's startup message until its session is ready.", engine.LoginBuckets[:], logins...)
	m.Add("entrapg_proxy_received_bytes_total", monitor.Counter, "Bytes that clients sent in sessions.", received...)
	m.Add("entrapg_proxy_sent_bytes_total", monitor.Counter, "Bytes that were sent to clients in sessions.", sent...)

	var requests, failures, retries, rejections, expiry []monitor.Sample
	for _, u := range s.plan.upstreams {
		stats := u.Stats()
		add := func(to *[]monitor.Sample, value int64) {
			*to = append(*to, monitor.Sample{Value: float64(value), Labels: []string{"upstream", u.name}})
		}
		add(&requests, stats.TokenRequests)
		add(&failures, stats.TokenFailures)
		add(&retries, stats.LoginRetries)
		add(&rejections, stats.LoginsRejected)
		if !stats.TokenExpiry.IsZero() {
			add(&expiry, stats.TokenExpiry.Unix())
		}
	}
	m.Add("entrapg_token_requests_total", monitor.Counter, "Calls to the credential.", requests...)
	m.Add("entrapg_token_failures_total", monitor.Counter, "Calls to the credential that returned no token.", failures...)
	m.Add("entrapg_token_expiry_timestamp_seconds", monitor.Gauge,
		"When the current token expires, as Unix time. An idle proxy lets it expire.", expiry...)
	m.Add("entrapg_logins_rejected_total", monitor.Counter,
		"Logins that a server rejected, including those retried.", rejections...)
	m.Add("entrapg_login_retries_total", monitor.Counter, "Logins that were retried with another token.", retries...)
	m.Add("entrapg_build_info", monitor.Gauge, "Version of the program; the value is 1.",
		monitor.Sample{Value: 1, Labels: []string{"version", s.plan.version, "goversion", runtime.Version()}})
	m.Add("process_start_time_seconds", monitor.Gauge, "Start time of the process, as Unix time.",
		monitor.Sample{Value: float64(s.begun.UnixMilli()) / float64(time.Second/time.Millisecond)})
}
