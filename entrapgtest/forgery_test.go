package entrapgtest_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/entrapgtest"
)

// publicKey fetches the tenant's public key.
func publicKey(t *testing.T, s *entrapgtest.Server) *rsa.PublicKey {
	t.Helper()
	response, err := s.Tenant.ClientOptions().Transport.Do(
		must[*http.Request](t)(http.NewRequest(http.MethodGet, s.Tenant.URL()+"/"+s.Tenant.ID+"/discovery/v2.0/keys", nil)),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var found struct{ Keys []struct{ N, E string } }
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil || len(found.Keys) != 1 {
		t.Fatalf("%d keys, error %v", len(found.Keys), err)
	}
	number := func(s string) *big.Int {
		return new(big.Int).SetBytes(must[[]byte](t)(base64.RawURLEncoding.DecodeString(s)))
	}
	return &rsa.PublicKey{N: number(found.Keys[0].N), E: int(number(found.Keys[0].E).Int64())}
}

func TestServer_ForgedTokenIsRejected(t *testing.T) {
	t.Parallel()
	s, other := share(t), startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("forged-" + t.Name())
	createRole(t, s, "", app)
	genuine := token(t, app, audience).Token
	parts := strings.Split(genuine, ".")
	public := publicKey(t, s)
	spki := must[[]byte](t)(x509.MarshalPKIXPublicKey(public))
	attackerKey := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	changed := func(change jwt.MapClaims) string { // by the tenant itself
		app.Claims = change
		defer func() { app.Claims = nil }()
		return token(t, app, audience).Token
	}
	withHeader := func(header string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + parts[2]
	}
	signed := func(header map[string]any) string {
		forged := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{})
		_, _, err := jwt.NewParser().ParseUnverified(genuine, forged.Claims)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range header {
			forged.Header[name] = v
		}
		return must[string](t)(forged.SignedString(attackerKey))
	}
	var header map[string]any
	if err := json.Unmarshal(must[[]byte](t)(base64.RawURLEncoding.DecodeString(parts[0])), &header); err != nil {
		t.Fatal(err)
	}
	const attacker = "http://127.0.0.1:1/"
	jwk := map[string]string{"kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(attackerKey.N.Bytes())}

	spkiPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	otherPayload := strings.Split(token(t, s.Tenant.NewServicePrincipal("y"), audience).Token, ".")[1]
	for name, password := range map[string]string{
		"HMAC with the public key as DER":   forge(t, genuine, jwt.SigningMethodHS256, spki, nil),
		"HMAC with the public key as PEM":   forge(t, genuine, jwt.SigningMethodHS256, spkiPEM, nil),
		"HMAC with the modulus":             forge(t, genuine, jwt.SigningMethodHS256, public.N.Bytes(), nil),
		"PSS":                               forge(t, genuine, jwt.SigningMethodPS256, attackerKey, nil),
		"alg none":                          forge(t, genuine, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil),
		"alg None":                          withHeader(`{"alg":"None","typ":"JWT"}`),
		"alg none with a genuine signature": withHeader(`{"alg":"none","typ":"JWT"}`),
		"no alg":                            withHeader(`{"typ":"JWT"}`),
		"alg twice":                         withHeader(fmt.Sprintf(`{"alg":"RS256","alg":"none","kid":%q}`, header["kid"])),
		"no kid":                            signed(nil),
		"kid of another tenant":             token(t, other.Tenant.NewServicePrincipal("x"), audience).Token,
		"kid as a path":                     signed(map[string]any{"kid": "../../../../dev/null"}),
		"kid as a list":                     signed(map[string]any{"kid": []any{header["kid"]}}),
		"kid of the federated issuer":       signed(map[string]any{"kid": "federation"}),
		"kid of the tenant and another key": signed(map[string]any{"kid": header["kid"], "jwk": jwk, "jku": attacker, "x5u": attacker}),
		"a federated token":                 must[string](t)(app.FederatedToken()),
		"four parts":                        genuine + "." + parts[2],
		"two parts":                         parts[0] + "." + parts[1],
		"no signature":                      parts[0] + "." + parts[1] + ".",
		"a signature of zeros":              parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"parts in another order":            parts[1] + "." + parts[0] + "." + parts[2],
		"padding":                           genuine + "==",
		"twice":                             genuine + genuine,
		"another's payload":                 parts[0] + "." + otherPayload + "." + parts[2],
		"dots":                              "..",
		"a trailing NUL":                    genuine + "\x00",
		"a leading space":                   " " + genuine,

		"not valid yet":                changed(jwt.MapClaims{"nbf": time.Now().Add(10 * time.Minute).Unix()}),
		"nbf as text":                  changed(jwt.MapClaims{"nbf": "now"}),
		"no exp":                       changed(jwt.MapClaims{"exp": nil}),
		"exp as text":                  changed(jwt.MapClaims{"exp": "never"}),
		"exp too large":                changed(jwt.MapClaims{"exp": 1e300}),
		"exp of the largest int64":     changed(jwt.MapClaims{"exp": int64(math.MaxInt64)}),
		"exp in the year 10000":        changed(jwt.MapClaims{"exp": int64(253402300800)}),
		"exp too small":                changed(jwt.MapClaims{"exp": -1e300}),
		"nbf too large":                changed(jwt.MapClaims{"nbf": 1e300}),
		"nbf too small":                changed(jwt.MapClaims{"nbf": -1e300}),
		"exp just now":                 changed(jwt.MapClaims{"exp": time.Now().Unix()}),
		"another issuer":               changed(jwt.MapClaims{"iss": "https://sts.windows.net/" + other.Tenant.ID + "/"}),
		"issuer with a suffix":         changed(jwt.MapClaims{"iss": "https://sts.windows.net/" + s.Tenant.ID + "/x"}),
		"no issuer":                    changed(jwt.MapClaims{"iss": nil}),
		"another tenant":               changed(jwt.MapClaims{"tid": other.Tenant.ID}),
		"two audiences":                changed(jwt.MapClaims{"aud": []string{audience, "https://management.azure.com"}}),
		"audience in upper case":       changed(jwt.MapClaims{"aud": strings.ToUpper(audience)}),
		"oid of another":               changed(jwt.MapClaims{"oid": s.Tenant.NewServicePrincipal("z").ObjectID}),
		"oid as a list":                changed(jwt.MapClaims{"oid": []string{app.ObjectID}}),
		"an application's as a user's": changed(jwt.MapClaims{"idtyp": "user"}),
	} {
		t.Run(name, func(t *testing.T) {
			var pgErr *pgconn.PgError
			if err := logIn(t, s, app.Name, password); !errors.As(err, &pgErr) || !strings.HasPrefix(pgErr.Code, "28") {
				t.Errorf("got %v, want a rejection", err)
			}
		})
	}
	issuer2 := "https://login.microsoftonline.com/" + s.Tenant.ID + "/v2.0"
	for name, password := range map[string]string{
		"unchanged":                 genuine,
		"version 2.0":               changed(jwt.MapClaims{"iss": issuer2, "ver": "2.0"}),
		"of a clock slightly ahead": changed(jwt.MapClaims{"nbf": time.Now().Add(time.Minute).Unix()}),
		"without nbf":               changed(jwt.MapClaims{"nbf": nil}),
	} {
		if err := logIn(t, s, app.Name, password); err != nil {
			t.Errorf("valid token, %s: %v", name, err)
		}
	}
}

// TestServer_TokenWithOneCharacterChangedIsRejected includes tokens whose signature is
// another encoding of the same number.
func TestServer_TokenWithOneCharacterChangedIsRejected(t *testing.T) {
	s := share(t)
	app := s.Tenant.NewUserAssignedIdentity("changed-" + t.Name())
	createRole(t, s, "", app)
	genuine := token(t, app, audience).Token
	places := []int{0, len(genuine) / 4, len(genuine) / 2, len(genuine) - 2, len(genuine) - 1}
	for _, at := range places {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		next := alphabet[(strings.IndexByte(alphabet, genuine[at])+1)%len(alphabet)]
		if err := logIn(t, s, app.Name, genuine[:at]+string(next)+genuine[at+1:]); err == nil {
			t.Errorf("accepted with character %d of %d changed", at, len(genuine))
		}
	}
}

func TestServer_RoleRejectsOtherPrincipals(t *testing.T) {
	t.Parallel()
	s := share(t)
	tenant := s.Tenant
	team := tenant.NewGroup("team-" + t.Name())
	alice, bob := tenant.NewUser("alice-taken@contoso.example", team), tenant.NewUser("bob-taken@contoso.example")
	guest := tenant.NewGuest("carol@fabrikam.example")
	app, deployer := tenant.NewUserAssignedIdentity("app-taken"), tenant.NewServicePrincipal("deployer-taken")
	vm := tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm-taken")
	everybody := []*entrapgtest.Principal{alice, bob, guest, app, deployer, vm}
	for _, p := range append(everybody, team) {
		createRole(t, s, "", p)
	}
	for _, p := range everybody {
		secret := token(t, p, audience).Token
		for _, role := range append(everybody, team) {
			may := role == p || role == team && p == alice
			if err := logIn(t, s, role.Name, secret); (err == nil) != may {
				t.Errorf("%s as %s: %v", p.Name, role.Name, err)
			}
		}
		// PostgreSQL's own roles require a password that no client knows.
		for _, role := range []string{
			"postgres", "POSTGRES", "pg_read_all_data", "pg_monitor", "does-not-exist",
			strings.ToUpper(p.Name), p.Name + " ", p.Name + strings.Repeat("x", 64),
		} {
			if err := logIn(t, s, role, secret); err == nil {
				t.Errorf("%s is accepted as %q", p.Name, role)
			}
		}
	}
}

func TestServer_SessionCannotSwitchRole(t *testing.T) {
	s := share(t)
	app, other := s.Tenant.NewUserAssignedIdentity("app-becomes"), s.Tenant.NewUserAssignedIdentity("other-becomes")
	createRole(t, s, "", app)
	createRole(t, s, "", other)
	secret := token(t, app, audience).Token
	for _, parameter := range []string{
		"role=postgres", "session_authorization=postgres", "options=-c%20role%3Dpostgres",
		"options=-c%20role%3Dother-becomes", "replication=true", "replication=database",
	} {
		conn, err := connect(t, s.DSN()+"&"+parameter, app.Name, secret)
		if err == nil {
			conn.Close(context.Background())
			t.Errorf("%s was accepted", parameter)
		}
	}
	conn, err := connect(t, s.DSN(), app.Name, secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range []string{
		`set role postgres`, `set role "other-becomes"`, `set session authorization postgres`, `alter role "app-becomes" superuser`,
		`select rolpassword from pg_authid`, `copy (select 1) to program 'true'`, `select pg_read_file('postgresql.conf')`,
		`create role mine`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("%s succeeded", statement)
		}
	}
}
