package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// tenant is the client for the tenant that AZURE_AUTHORITY_HOST names. Go reads SSL_CERT_FILE only on some systems.
var tenant = &http.Client{}

// identities are the credentials of the emulator's principals. Each has a role with the same name.
var identities = map[string]func() (azcore.TokenCredential, error){
	"shop-api": func() (azcore.TokenCredential, error) {
		return azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
			ID: azidentity.ClientID(os.Getenv("SHOP_API_CLIENT_ID")),
		})
	},
	"reporting": func() (azcore.TokenCredential, error) {
		options := azidentity.ClientSecretCredentialOptions{DisableInstanceDiscovery: true}
		options.Transport = tenant
		return azidentity.NewClientSecretCredential(
			os.Getenv("AZURE_TENANT_ID"), os.Getenv("REPORTING_CLIENT_ID"), os.Getenv("REPORTING_CLIENT_SECRET"), &options)
	},
}

func credentialOf(t *testing.T, identity string) azcore.TokenCredential {
	t.Helper()
	credential, err := identities[identity]()
	if err != nil {
		t.Fatal(err)
	}
	return credential
}

// loginBy opens a way, and returns a function that logs in with it.
func loginBy(t *testing.T, w way, credential azcore.TokenCredential, user string) func() (session, error) {
	t.Helper()
	login, closeIt, err := w.open(t.Context(), credential, user)
	if err != nil {
		return func() (session, error) { return session{}, err }
	}
	t.Cleanup(closeIt)
	return func() (session, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return login(ctx)
	}
}

// token returns a token of an identity for the database, and when it expires.
func token(t *testing.T, identity string) azcore.AccessToken {
	t.Helper()
	token, err := credentialOf(t, identity).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestClients_LogInAfterTokenExpires(t *testing.T) {
	t.Parallel()
	for identity := range identities {
		for _, w := range ways {
			t.Run(identity+" with "+w.name, func(t *testing.T) {
				t.Parallel()
				login := loginBy(t, w, credentialOf(t, identity), identity)
				var first session
				for n := range 2 {
					s, err := login()
					if err != nil || s.user != identity {
						t.Fatalf("login %d: as %q, %v", n+1, s.user, err)
					}
					if n == 0 {
						first = s
						time.Sleep(time.Until(token(t, identity).ExpiresOn.Add(time.Second)))
					} else if !s.started.After(first.started.Add(time.Second)) {
						t.Errorf("the second login used a connection of %v, the first one of %v", s.started, first.started)
					}
				}
			})
		}
	}
}

// A fixed credential has one token.
type fixed string

func (f fixed) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(f), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestClients_InvalidTokensAreRejected(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		alter func(t *testing.T, token azcore.AccessToken) string
		want  string
	}{
		"expired": {func(_ *testing.T, token azcore.AccessToken) string {
			time.Sleep(time.Until(token.ExpiresOn.Add(time.Second)))
			return token.Token
		}, "The access token has expired. Acquire a new token and try again."},
		"forged": {func(_ *testing.T, token azcore.AccessToken) string {
			return token.Token[:len(token.Token)-40] + strings.Repeat("A", 40)
		}, "An error occurred while validating the access token."},
		"cut":      {func(_ *testing.T, token azcore.AccessToken) string { return token.Token[:400] }, "The access token has invalid format."},
		"password": {func(*testing.T, azcore.AccessToken) string { return "password" }, "An error occurred while validating the access token."},
		"for another resource": {func(t *testing.T, _ azcore.AccessToken) string {
			token, err := credentialOf(t, "shop-api").GetToken(t.Context(),
				policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}})
			if err != nil {
				t.Fatal(err)
			}
			return token.Token
		}, "The access token does not have a valid audience claim."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			altered := fixed(c.alter(t, token(t, "shop-api")))
			for _, w := range ways {
				if _, err := loginBy(t, w, altered, "shop-api")(); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %v", w.name, err)
				}
			}
		})
	}
}

func TestClients_OtherRolesAreRejected(t *testing.T) {
	t.Parallel()
	for _, w := range ways {
		for role, want := range map[string]string{
			"reporting": `Service principal oid mismatch for role "reporting"`,
			"nobody":    `password authentication failed for user "nobody"`,
		} {
			if _, err := loginBy(t, w, credentialOf(t, "shop-api"), role)(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s as %s: %v", w.name, role, err)
			}
		}
	}
}

func TestLibPQ_CancelsQuery(t *testing.T) {
	t.Parallel()
	credential := credentialOf(t, "shop-api")
	db := sql.OpenDB(passwords{func(ctx context.Context) (string, string, error) {
		password, err := tokenOf(ctx, credential)
		return "shop-api", password, err
	}})
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var pid int
	if err := conn.QueryRowContext(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	// wait waits until the query runs, or no longer runs.
	wait := func(running bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			var found bool
			if err := db.QueryRow("select exists (select from pg_stat_activity where pid = $1 and wait_event = 'PgSleep')",
				pid).Scan(&found); err != nil {
				t.Fatal(err)
			}
			if found == running {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the query runs: %v", found)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := conn.ExecContext(ctx, "select pg_sleep(300)")
		ended <- err
	}()
	wait(true)
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("the query was not canceled")
	}
	wait(false)
}

func TestMain(m *testing.M) {
	if os.Getenv("SHOP_API_CLIENT_ID") == "" {
		fmt.Fprintln(os.Stderr, "run these tests with clients/go/run, which starts an emulator")
		os.Exit(1)
	}
	ca, err := os.ReadFile(os.Getenv("PGSSLROOTCERT"))
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	tenant.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	os.Exit(m.Run())
}
