package entrapgtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// azureAudience is the resource of the tokens for a server.
const azureAudience = "https://ossrdbms-aad.database.windows.net"

// newFront returns a tenant and a front without a PostgreSQL. A client that it accepts
// gets the error that PostgreSQL cannot be reached.
func newFront(tb testing.TB) (*Tenant, *front, *authority) {
	tb.Helper()
	st, err := newState(1000*time.Hour, sharedKey)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := newCertificate(st.authority, nil)
	if err != nil {
		tb.Fatal(err)
	}
	config, err := pgx.ParseConfig("host=127.0.0.1 user=postgres")
	if err != nil {
		tb.Fatal(err)
	}
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no PostgreSQL")
	}
	tenant := newTenant(st, 1000*time.Hour, site{url: "https://localhost", identityURL: "http://localhost"})
	mapped := newRoles(st.Seed.derive("roles"))
	postgres := &backend{config: config, roles: mapped}
	return tenant, &front{
		tls: c.tls, method: passwordMethod{}, judge: judge{tokens: &tenant.tokens, audience: azureAudience},
		administration: &administration{tenant: tenant, backend: postgres, roles: mapped}, backend: postgres, ctx: tb.Context(),
	}, st.authority
}

func newToken(tb testing.TB, p *Principal) string {
	tb.Helper()
	token, err := p.tenant.tokens.issue(p, p.ClientID, azureAudience)
	if err != nil {
		tb.Fatal(err)
	}
	return token.Token
}

// FuzzFront sends arbitrary bytes before TLS, inside TLS, and as the password of a mapped
// role. Nothing panics, every session ends, and no client is accepted.
func FuzzFront(f *testing.F) {
	tenant, front, authority := newFront(f)
	app := tenant.NewUserAssignedIdentity("app")
	front.administration.roles.add("app", mapping{objectID: app.ObjectID, objectType: "service"})
	sslRequest := []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}
	startup, err := (&pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters:      map[string]string{"user": "app"},
	}).Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	genuine := newToken(f, app)
	parts := strings.Split(genuine, ".")
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone,
		jwt.MapClaims{"oid": app.ObjectID}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		f.Fatal(err)
	}
	for _, password := range []string{
		"", "hunter2", "..", none, parts[0] + "." + parts[1] + ".",
		parts[0] + ".e30." + parts[2],
	} {
		message, err := (&pgproto3.PasswordMessage{Password: password}).Encode(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sslRequest, startup, message)
		f.Add(startup, []byte{}, message)
	}
	f.Add([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30}, sslRequest, []byte("p\x00\x00\x00\x04"))
	f.Add([]byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 1}, []byte{0x16, 3, 1},
		[]byte("p\xff\xff\xff\xff"))

	listener, err := net.Listen("unix", filepath.Join(f.TempDir(), "s"))
	if err != nil {
		f.Skip(err)
	}
	f.Cleanup(func() { listener.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	// attempt runs a client and returns the logins that the server recorded.
	attempt := func(t testing.TB, plain, secured, password []byte) []Login {
		front.log = loginLog{}
		client, err := net.Dial("unix", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			front.session(conn)
		}()
		client.SetDeadline(time.Now().Add(time.Minute))
		client.Write(plain)
		if bytes.Equal(plain, sslRequest) { // other messages may get no answer
			answer := make([]byte, 1)
			if _, err := io.ReadFull(client, answer); err == nil && answer[0] == 'S' {
				secret := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "localhost"})
				secret.Write(secured)
				secret.Write(password)
				secret.CloseWrite()
			}
		} else {
			client.Write(secured)
			client.Write(password)
		}
		client.(*net.UnixConn).CloseWrite()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("the session does not end")
		}
		if len(front.connections.open) > 0 {
			t.Error("a connection is left")
		}
		return front.log.all()
	}
	isAccepted := func(l Login) bool { return l.Accepted || l.User == "app" && l.Message == unreachable(io.EOF).message }

	message, err := (&pgproto3.PasswordMessage{Password: genuine}).Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	if logins := attempt(f, sslRequest, startup, message); len(logins) != 1 || !isAccepted(logins[0]) {
		f.Fatalf("a valid token is rejected: %+v", logins)
	}
	f.Fuzz(func(t *testing.T, plain, secured, password []byte) {
		for _, l := range attempt(t, plain, secured, password) {
			if isAccepted(l) {
				t.Errorf("accepted: %+v", l)
			}
		}
	})
}

// FuzzJudge changes a valid token and tries the result with roles of every kind. Each
// fuzzing process has its own token.
func FuzzJudge(f *testing.F) {
	tenant, front, _ := newFront(f)
	app := tenant.NewUserAssignedIdentity("app")
	genuine := newToken(f, app)
	for _, cut := range []uint16{0, 1, 40, 5000} {
		f.Add(uint16(0), cut, "")
		f.Add(uint16(40), cut, ".")
		f.Add(uint16(1000), cut, "eyJhbGciOiJub25lIn0.")
	}
	f.Fuzz(func(t *testing.T, at, cut uint16, insert string) {
		from := int(at) % len(genuine)
		password := genuine[:from] + insert + genuine[min(len(genuine), from+int(cut)):]
		for _, kind := range []Kind{User, Group, ServicePrincipal} {
			err := front.judge.check("role", mapping{objectID: app.ObjectID, objectType: kind.objectType()}, password)
			if in := password == genuine && kind == ServicePrincipal; (err == nil) != in {
				t.Errorf("as %s, with %q for %d characters at %d: got %v", kind, insert, cut, from, err)
			}
		}
	})
}

// FuzzTenant sends arbitrary requests to the tenant and to the managed identity endpoint.
// Neither issues a token without a secret.
func FuzzTenant(f *testing.F) {
	t, _, _ := newFront(f)
	user, app := t.NewUser("alice@contoso.example"), t.NewServicePrincipal("app")
	t.NewHost(t.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm"), t.NewUserAssignedIdentity("id"))
	const path = "/" + tenantDomain + "/oauth2/v2.0/token"
	scope := "&scope=" + azureAudience + "/.default"
	f.Add("POST", path, "", "grant_type=client_credentials&client_secret=x&client_id="+app.ClientID+scope)
	f.Add(
		"POST",
		path,
		"",
		"grant_type=client_credentials&client_assertion=e30.e30.&client_assertion_type="+jwtBearer+"&client_id="+app.ClientID+scope,
	)
	f.Add("POST", path, "", "grant_type=password&client_id="+azureCLI+"&username="+user.Name+"&password=x"+scope)
	f.Add("GET", "/"+t.ID+"/v2.0/.well-known/openid-configuration", "", "")
	f.Add("GET", imdsPath+"?resource=x", "Metadata: true", "")
	f.Add("GET", appServicePath+"?api-version=2019-08-01&resource=x&client_id=%00", "X-IDENTITY-HEADER: x", "")
	entra, identity := entraRoutes(t), identityRoutes(t)
	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		for name, handler := range map[string]http.Handler{"Entra": entra, "managed identity": identity} {
			r, err := http.NewRequest(method, "https://localhost"+target, strings.NewReader(body))
			if err != nil {
				t.Skip()
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if key, value, ok := strings.Cut(header, ":"); ok {
				r.Header.Set(key, strings.TrimSpace(value))
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if strings.Contains(w.Body.String(), `"access_token":`) { // quotes of a repeated request are escaped
				t.Errorf("%s issued a token: %s", name, w.Body)
			}
		}
	})
}
