package engine_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/proxy/engine"
	"github.com/entrapg/entrapg/entrapgtest"
)

// TestFailure_OfServerIsForwarded compares the server's own error with the error that a
// client of the proxy gets.
func TestFailure_OfServerIsForwarded(t *testing.T) {
	s := server(t)
	app := newIdentity(t, s)
	for name, test := range map[string]struct {
		code, message, hint string
		rejection           *entrapgtest.Rejection
		settings            string
	}{
		"no hint": {
			"28000", "The access token has expired. Acquire a new token and try again.", "token", &entrapgtest.Rejection{
				Code: "28000", Message: "The access token has expired. Acquire a new token and try again.",
			}, "",
		},
		"the server's hint": {
			"28000", "Azure AD access token not valid for role x (does not contain group ID y)", "Did you specify the correct user name and access token?",
			&entrapgtest.Rejection{
				Code: "28000", Message: "Azure AD access token not valid for role x (does not contain group ID y)",
				Hint: "Did you specify the correct user name and access token?",
			}, "",
		},
		"missing database": {"3D000", `database "nothing" does not exist`, "database", nil, "dbname=nothing"},
		"user as database": {"3D000", `database "client" does not exist`, "name of the user", nil, "dbname=client"},
		"invalid setting":  {"22023", `invalid value for parameter "TimeZone": "Mars"`, "", nil, "TimeZone=Mars"},
	} {
		inject(t, s, entrapgtest.Faults{Reject: test.rejection})
		p := start(t, &engine.Server{Upstream: to(t, s, app)})
		got := p.rejection(t, test.settings)
		if got.Severity != "FATAL" || got.Code != test.code || got.Message != test.message || !strings.Contains(got.Hint, test.hint) {
			t.Errorf("%s: rejected with %+v", name, got)
		}
		if got.Hint != "" && !strings.HasSuffix(got.Hint, ".") && !strings.HasSuffix(got.Hint, "?") {
			t.Errorf("%s: the hint is not a sentence: %q", name, got.Hint)
		}
		log := p.log.String()
		if strings.Contains(test.settings, "dbname=") && !strings.Contains(log, test.settings[len("dbname="):]+"`: ") {
			t.Errorf("%s: the error in the log has another database: %s", name, log)
		}
		if test.rejection == nil && got.File == "" {
			t.Errorf("%s: fields of the server's error are missing: %+v", name, got)
		}
		if p.Stats().Rejected[engine.RejectedServer] != 1 {
			t.Errorf("%s: counted %v", name, p.Stats().Rejected)
		}
	}
}

func TestFailure_HasCodeAndCauseForClient(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := server(t)
	app := newIdentity(t, s)
	named := newIdentity(t, s)
	for name, test := range map[string]struct {
		dsn           string
		faults        entrapgtest.Faults
		code, message string
		kind          engine.Rejection
	}{
		"refused": {
			"postgres://u@127.0.0.1:1/?sslmode=require",
			entrapgtest.Faults{},
			"08001", "connection refused",
			engine.RejectedNetwork,
		},
		"unknown host": {
			"postgres://u@no-such-host.invalid/", entrapgtest.Faults{}, "08001", "no-such-host.invalid", engine.RejectedNetwork,
		},
		"silent": {
			"postgres://u@" + silent.Addr().String() + "/?connect_timeout=1",
			entrapgtest.Faults{},
			"08001",
			"no answer from 127.0.0.1:", engine.RejectedNetwork,
		},
		"not trusted": {
			strings.Replace(s.DSN(), "sslrootcert=", "x_", 1),
			entrapgtest.Faults{},
			"08001",
			"cannot verify the certificate of 127.0.0.1:", engine.RejectedNetwork,
		},
		"cut": {
			s.DSN(),
			entrapgtest.Faults{CutLogin: entrapgtest.AfterPassword},
			"08006", "broke during the login",
			engine.RejectedNetwork,
		},
		"no TLS":        {s.DSN(), entrapgtest.Faults{NoTLS: true}, "08001", "TLS", engine.RejectedNetwork},
		"Entra is down": {s.DSN(), entrapgtest.Faults{EntraDown: true}, "28000", "no token from", engine.RejectedToken},
		"MFA":           {s.DSN(), entrapgtest.Faults{Entra: entrapgtest.EntraServerError}, "28000", "no token from", engine.RejectedToken},
	} {
		inject(t, s, test.faults)
		dsn := test.dsn
		if name == "not trusted" {
			dsn = s.DSN()[:strings.Index(s.DSN(), "&sslrootcert")]
		}
		credential := app
		if test.kind == engine.RejectedToken {
			credential = named
		}
		p := start(t, &engine.Server{Upstream: upstream(t, dsn, withApp(credential)...)})
		got := p.rejection(t, "")
		if got.Severity != "FATAL" || got.Code != test.code || !strings.Contains(got.Message, test.message) || got.Hint == "" {
			t.Errorf("%s: rejected with %+v", name, got)
		}
		if strings.Contains(got.Message, strings.TrimSuffix(got.Hint, ".")[1:]) {
			t.Errorf("%s: the message repeats the hint: %+v", name, got)
		}
		if log := p.log.String(); !strings.Contains(log, "hint=") {
			t.Errorf("%s: the hint is not logged: %s", name, log)
		}
		if strings.ContainsAny(got.Message+got.Hint, "\n\t\r") || len(got.Message) > 1100 {
			t.Errorf("%s: the message has several lines: %q", name, got.Message)
		}
		if p.Stats().Rejected[test.kind] != 1 {
			t.Errorf("%s: counted %v", name, p.Stats().Rejected)
		}
	}
}

func TestFailure_ExplainsThatNoHostIsSuitable(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: upstream(t, s.DSN()+"&target_session_attrs=standby", withApp(newIdentity(t, s))...)})
	got := p.rejection(t, "")
	if got.Code != "08001" || !strings.HasSuffix(got.Message, "satisfies target_session_attrs: server is not in hot standby mode") ||
		!strings.Contains(got.Hint, "target_session_attrs=any") {
		t.Errorf("rejected with %+v", got)
	}
}

// A sameToken is a credential that has only one token.
type sameToken struct{ azcore.AccessToken }

func (s *sameToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return s.AccessToken, nil
}

func TestFailure_HidesToken(t *testing.T) {
	s := server(t)
	app := newIdentity(t, s)
	token, err := app.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://ossrdbms-aad.database.windows.net/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	inject(t, s, entrapgtest.Faults{
		Reject: &entrapgtest.Rejection{Code: "28000", Message: "the token is " + token.Token, Hint: token.Token},
	})
	dsn := strings.Replace(s.DSN(), "://", "://"+app.Name+"@", 1)
	p := start(t, &engine.Server{Upstream: upstream(t, dsn, withApp(&sameToken{token})...)})
	if got := p.rejection(t, ""); got.Message != "the token is [token]" || got.Hint != "[token]" {
		t.Errorf("the client gets %+v", got)
	}
	if log := p.log.String(); strings.Contains(log, token.Token[:64]) || !strings.Contains(log, "[token]") {
		t.Errorf("logged: %s", log)
	}
}

func TestFailure_OfRevokedTokenIsRetried(t *testing.T) {
	s := server(t)
	u := to(t, s, newIdentity(t, s))
	p := start(t, &engine.Server{Upstream: u})
	query(t, p.connect(t, ""), "select 1::text")
	if err := s.RevokeTokens(); err != nil {
		t.Fatal(err)
	}
	query(t, p.connect(t, ""), "select 1::text")
	if n := u.Stats().LoginRetries; n != 1 {
		t.Errorf("%d retries", n)
	}
}

func TestFailure_EndsWhenServerHasRestarted(t *testing.T) {
	s := server(t)
	p := start(t, &engine.Server{Upstream: to(t, s, newIdentity(t, s))})
	conn := p.connect(t, "")
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Exec(t.Context(), "select 1")
	if response, ok := asPgError(err); !ok || response.Code != "57P01" {
		t.Errorf("the open session ends with %v", err)
	}
	query(t, p.connect(t, ""), "select 1::text")
}

// TestFailure_OfClientUserRefreshesNoToken logs in alternately with a user that is rejected and one that
// is accepted. The rejections must not make every login fetch another token.
func TestFailure_OfClientUserRefreshesNoToken(t *testing.T) {
	s := server(t)
	app, other := newIdentity(t, s), s.Tenant.NewUserAssignedIdentity("other")
	if err := s.CreateRole(t.Context(), "", other); err != nil {
		t.Fatal(err)
	}
	u := to(t, s, app)
	p := start(t, &engine.Server{Upstream: u, ClientUser: true})
	for range 20 {
		if got := p.rejection(t, "user=other"); got.Code != "28P01" && got.Code != "28000" {
			t.Fatalf("rejected with %+v", got)
		}
		conn := p.connect(t, "user="+app.Name)
		if got := query(t, conn, "select current_user"); got != app.Name {
			t.Fatalf("logged in as %s", got)
		}
	}
	if n := u.Stats().TokenRequests; n >= 20 {
		t.Errorf("%d token requests for one user that is rejected", n)
	}
}

func TestUpstream_ChecksLoginAndDSN(t *testing.T) {
	s := server(t)
	u := to(t, s, newIdentity(t, s))
	if err := u.Check(t.Context()); err != nil {
		t.Error(err)
	}
	inject(t, s, entrapgtest.Faults{EntraDown: true})
	if err := to(t, s, newIdentity(t, s)).Check(t.Context()); err == nil {
		t.Error("no error while Entra is down")
	}
	if _, err := engine.NewUpstream("postgres://h/?sslmode=prefer"); err == nil {
		t.Error("an invalid DSN is accepted")
	}
}

func TestServer_LimitsConnections(t *testing.T) {
	s := server(t)
	limit := engine.NewLimit(2)
	u := to(t, s, newIdentity(t, s))
	first, second := start(t, &engine.Server{Upstream: u, Limit: limit}), start(t, &engine.Server{Upstream: u, Limit: limit})
	one, _ := first.connect(t, ""), second.connect(t, "")
	for _, p := range []*running{first, second} {
		if got := p.rejection(t, ""); got.Code != "53300" || got.Hint == "" {
			t.Errorf("rejected with %+v", got)
		}
	}
	one.Close(t.Context())
	await(t, "a free slot", func() bool { return first.Stats().Open == 0 })
	second.connect(t, "")
}
