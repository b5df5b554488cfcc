package main

import (
	"context"
	"time"

	"github.com/entrapg/entrapg/entrapgtest"
)

// A fault is a failure that lasts for a while, with the effects that it may have on
// queries.
type fault struct {
	name   string
	faults entrapgtest.Faults                               // active while it lasts
	inject func(context.Context, *entrapgtest.Server) error // runs once, at the beginning
	lasts  time.Duration

	tokenLife  time.Duration // in the test of the fault, an hour by default
	untilToken bool          // lasts until the current token has expired, and then for lasts
	overHTTP   bool          // the test uses a credential of azidentity
	restarts   bool          // the test starts its own PostgreSQL
	group      string        // faults of a group share a load in the test

	// allows are the causes for which queries may fail, by pool. With untilToken, they may
	// fail only after the token has expired.
	allows map[string][]string
	within time.Duration // queries that start after this time from the end of the fault must succeed

	noticed func(effect) bool // reports whether the fault had its effect; by default, whether queries failed
}

// hadEffect reports whether the fault had its effect.
func (f *fault) hadEffect(n effect) bool {
	if f.noticed == nil {
		return n.failures > 0
	}
	return f.noticed(n)
}

// soon bounds how long queries may fail after a fault that causes no pauses in
// entrapg: those that use attempts in flight fail, and the next ones succeed.
const soon = 3 * time.Second

// An effect is what was observed during a fault.
type effect struct {
	failures int
	pools    int           // with failures
	requests int           // for tokens
	rejected int           // logins that the server rejected
	slowest  time.Duration // connect
}

// both allows the same causes for both pools.
func both(causes ...string) map[string][]string {
	return map[string][]string{sqlDB: causes, pgxPool: causes}
}

// outage allows the effects of a long outage of Entra. In the soak, a token can expire
// between Connect and the server, which then rejects it. sql.DB requests another one and
// reports that none is available.
var outage = map[string][]string{sqlDB: {noToken}, pgxPool: {noToken, "login 28000"}}

var faults = append([]fault{
	{
		name: "Entra is down for a token's whole life", faults: entrapgtest.Faults{EntraDown: true},
		untilToken: true, tokenLife: 3 * time.Second, lasts: time.Second,
		allows: outage, within: soon,
	},
	{
		name: "Entra answers 429 for a token's whole life", faults: entrapgtest.Faults{Entra: entrapgtest.EntraThrottled},
		untilToken: true, tokenLife: 2 * time.Second, lasts: time.Second,
		allows: outage, within: soon,
	},
	{
		name: "Entra answers 429 over HTTP", faults: entrapgtest.Faults{Entra: entrapgtest.EntraThrottled},
		// azidentity retries for two seconds.
		untilToken: true, tokenLife: 4 * time.Second, lasts: 4 * time.Second, overHTTP: true,
		allows: outage, within: soon,
	},
	{
		name: "Entra is reset for a token's whole life", faults: entrapgtest.Faults{Entra: entrapgtest.EntraReset},
		untilToken: true, tokenLife: 2 * time.Second, lasts: time.Second,
		allows: outage, within: soon,
	},
	{
		// The current token remains in use until the new one arrives.
		name: "Entra is slow", faults: entrapgtest.Faults{EntraDelay: 500 * time.Millisecond},
		tokenLife: 6 * time.Second, lasts: 6 * time.Second,
		noticed: func(n effect) bool { return n.requests > 0 },
	},
	{
		// sql.DB retries; pgxpool's hooks do not allow that.
		name: "tokens are revoked", inject: func(_ context.Context, s *entrapgtest.Server) error { return s.RevokeTokens() },
		lasts:  time.Second,
		allows: map[string][]string{pgxPool: {"login 28000"}}, within: soon,
		noticed: func(n effect) bool { return n.rejected > 0 },
	},
	{
		name: "the server answers slowly", faults: entrapgtest.Faults{LoginDelay: time.Second},
		lasts:   2500 * time.Millisecond,
		noticed: func(n effect) bool { return n.slowest >= time.Second },
	},
	{
		name: "the server does not answer", faults: entrapgtest.Faults{LoginDelay: 30 * time.Second},
		lasts:  connectTimeout + time.Second,
		allows: both(deadline), within: soon,
	},
	{
		name:     "the server restarts",
		inject:   func(ctx context.Context, s *entrapgtest.Server) error { return s.Restart(ctx) },
		restarts: true,
		// The front returns 08006 if the server is down.
		allows: both(network, "query 57P01", "query 57P02", "query 57P03", "login 57P01", "login 57P03", "login 08006"),
		within: soon,
	},
	{
		group: "cuts", name: "connections are cut at once", faults: entrapgtest.Faults{CutLogin: entrapgtest.AtConnect},
		lasts: time.Second, allows: both(network), within: soon,
	},
	{
		group: "cuts", name: "connections are cut after TLS", faults: entrapgtest.Faults{CutLogin: entrapgtest.AfterTLS},
		lasts: time.Second, allows: both(network), within: soon,
	},
	{
		group: "cuts", name: "connections are cut after the startup message",
		faults: entrapgtest.Faults{CutLogin: entrapgtest.AfterStartup},
		lasts:  time.Second, allows: both(network), within: soon,
	},
	{
		group: "cuts", name: "connections are cut after the password",
		faults: entrapgtest.Faults{CutLogin: entrapgtest.AfterPassword},
		lasts:  time.Second, allows: both(network), within: soon,
	},
}, rejections()...)

// rejections returns faults in which the server rejects logins with Azure's messages.
func rejections() []fault {
	var all []fault
	for _, r := range []entrapgtest.Rejection{
		{Code: "28000", Message: "The access token has expired. Acquire a new token and try again."},
		{Code: "28000", Message: "The access token does not have a valid audience claim. Please acquire a new " +
			`token for the resource "https://ossrdbms-aad.database.windows.net".`},
		{Code: "28000", Message: "The access token does not have a valid audience claim. Please acquire a new " +
			`token for the resource "https://token.postgres.cosmos.azure.com".`},
		{Code: "28000", Message: "The access token has invalid format. Please ensure the token is passed exactly " +
			"as returned by the authentication endpoint and retry."},
		{Code: "28000", Message: "An error occurred while validating the access token. Please acquire a new token and retry"},
		{Code: "28000", Message: "The access token doesn't have a valid oid claim. Acquire a new token and try again"},
		{Code: "28000", Message: "Service Principals cannot generate AAD_AUTH_TOKENTYPE_APP_USER tokens for role[app]"},
		{Code: "28000", Message: "Azure AD user token for role[app] is neither an AAD_AUTH_TOKENTYPE_APP_USER or " +
			"an AAD_AUTH_TOKENTYPE_APP_OBO token."},
		{
			Code: "28000", Message: "Azure AD access token not valid for role app (does not contain group ID 0)",
			Hint: "Did you specify the correct user name and access token?",
		},
		{Code: "28P01", Message: `password authentication failed for user "app"`},
		{Code: "28000", Message: `no pg_hba.conf entry for host "192.0.2.1", user "app", database "postgres", no encryption`},
		{Code: "08P01", Message: "password authentication failed"},
		{Code: "08P01", Message: "client sent partial pkt in startup phase"},
		{Code: "53300", Message: "remaining connection slots are reserved for azure replication users"},
	} {
		all = append(all, fault{
			group: "rejections", name: "the server rejects: " + r.Message, faults: entrapgtest.Faults{Reject: &r},
			lasts: lifetime, allows: both("login " + r.Code), within: soon,
			// entrapg requests a few other tokens, not one for every connection.
			noticed: func(n effect) bool { return n.pools == 2 && n.rejected > 0 && n.requests <= 12 },
		})
	}
	return all
}
