package entrapg_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func TestUsername_HungLookupFallsBackToDisplayName(t *testing.T) {
	credential := credentialFunc(func(ctx context.Context, scope string) (azcore.AccessToken, error) {
		if strings.Contains(scope, "management") {
			<-ctx.Done()
			return azcore.AccessToken{}, ctx.Err()
		}
		return azcore.AccessToken{Token: jwt(c{"app_displayname": "Shop"}), ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		c := entrapg.NewConnector(
			"host=127.0.0.1 sslmode=disable",
			s.options(),
			entrapg.WithCredential(credential),
			entrapg.WithLogger(nil),
		)
		mustConnect(t, c)
		if user := c.Stats().User; user != "Shop" {
			t.Errorf("user %q", user)
		}
	})
}

// jwt returns an unsigned token with the given claims. Clients do not verify signatures.
func jwt(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
}

type c = map[string]any

const (
	identities = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	machines   = "/subscriptions/s/resourcegroups/g/providers/Microsoft.Compute/virtualMachines/"
	sites      = "/subscriptions/s/resourcegroups/g/providers/Microsoft.Web/sites/"
)

var long = strings.Repeat("x", 64)

func TestUsername_IsDerivedFromClaims(t *testing.T) {
	const oid = "0a"
	for name, test := range map[string]struct {
		database, management map[string]any // claims of the two tokens
		want                 string         // empty: a UsernameError
		requests             int64
	}{
		"user-assigned identity": {c{"xms_mirid": identities + "shop-api", "upn": "x", "appid": "y"}, nil, "shop-api", 1},
		"in upper case":          {c{"xms_mirid": strings.ToUpper(identities) + "Shop-API"}, nil, "Shop-API", 1},
		"in lower case":          {c{"xms_mirid": strings.ToLower(identities) + "shop-api"}, nil, "shop-api", 1},
		"upn": {
			c{"upn": "alice@contoso.example", "unique_name": "x", "appid": "y"}, nil, "alice@contoso.example", 1,
		},
		"preferred_username": {
			c{"preferred_username": "alice@contoso.example", "unique_name": "x"}, nil, "alice@contoso.example", 1,
		},
		"unique_name": {
			c{"unique_name": "bob@fabrikam.example", "app_displayname": "x"}, nil, "bob@fabrikam.example", 1,
		},
		"a person before a resource": {
			c{"upn": "alice@contoso.example", "xms_mirid": machines + "vm1"}, nil, "alice@contoso.example", 1,
		},
		"virtual machine":             {c{"xms_mirid": machines + "vm1", "appid": "y"}, nil, "vm1", 1},
		"app":                         {c{"xms_mirid": sites + "shop"}, nil, "shop", 1},
		"deployment slot":             {c{"xms_mirid": sites + "shop/slots/blue"}, nil, "shop/slots/blue", 1},
		"deployment slot in odd case": {c{"xms_mirid": strings.ToLower(sites) + "Shop/SLOTS/Blue"}, nil, "Shop/slots/Blue", 1},
		"a nested resource": {
			c{"xms_mirid": "/subscriptions/s/resourcegroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/e"},
			nil, "e", 1,
		},
		"identity by the management token": {
			c{"appid": "y", "oid": oid}, c{"oid": oid, "xms_mirid": identities + "shop-api"}, "shop-api", 2,
		},
		"person by the management token":  {c{"oid": oid}, c{"oid": oid, "upn": "alice@contoso.example"}, "alice@contoso.example", 2},
		"machine by the management token": {c{"oid": oid}, c{"oid": oid, "xms_mirid": machines + "vm1"}, "vm1", 2},
		"app_displayname":                 {c{"app_displayname": "Shop", "appid": "y"}, c{"app_displayname": "z"}, "Shop", 2},
		"appid":                           {c{"appid": "y"}, c{"appid": "z"}, "y", 2},
		"appid, without management token": {c{"appid": "y"}, nil, "y", 2},
		"claims that are not strings": {
			c{"upn": 7, "preferred_username": nil, "unique_name": []string{"x"}, "appid": "y"}, c{}, "y", 2,
		},
		"claims that are empty":                {c{"upn": "", "xms_mirid": "", "unique_name": "u"}, nil, "u", 1},
		"claims that are too long":             {c{"upn": long, "unique_name": long[:63]}, nil, long[:63], 1},
		"an identity's name too long":          {c{"xms_mirid": identities + long, "upn": "u"}, nil, "u", 1},
		"claims with NUL":                      {c{"upn": "a\x00b", "unique_name": "u"}, nil, "u", 1},
		"a malformed resource ID":              {c{"xms_mirid": "nonsense", "appid": "y"}, c{}, "y", 2},
		"a resource ID that ends in a slash":   {c{"xms_mirid": identities, "appid": "y"}, c{}, "y", 2},
		"no usable claim":                      {c{"aud": "x", "oid": oid}, c{}, "", 2},
		"no usable claim, no management token": {c{"aud": "x", "oid": oid}, nil, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			down := errors.New("no management token")
			credential := credentialFunc(func(_ context.Context, scope string) (azcore.AccessToken, error) {
				claims := test.database
				if scope == "https://management.azure.com/.default" {
					claims = test.management
				}
				if claims == nil {
					return azcore.AccessToken{}, down
				}
				return azcore.AccessToken{Token: jwt(claims), ExpiresOn: time.Now().Add(time.Hour)}, nil
			})
			var user string
			s := &pipeServer{}
			c := entrapg.NewConnector(
				"host=127.0.0.1 sslmode=disable",
				s.options(),
				entrapg.WithCredential(credential),
				entrapg.WithLogger(nil),
			)
			defer c.Close()
			err := connect(t, c)
			if test.want == "" {
				var username *entrapg.UsernameError
				if !errors.As(err, &username) || strings.Join(username.Claims, " ") != "aud oid" {
					t.Fatalf("got %v, want a UsernameError that lists the claims", err)
				}
				if !strings.Contains(err.Error(), "user=") || test.management == nil && !errors.Is(err, down) {
					t.Errorf("got %v, want the setting to change, and the cause", err)
				}
				if len(s.passwords()) > 0 {
					t.Error("a password was sent")
				}
			} else if err != nil {
				t.Fatal(err)
			} else if user = c.Stats().User; user != test.want {
				t.Errorf("user %q, want %q", user, test.want)
			}
			if n := c.Stats().TokenRequests; n != test.requests {
				t.Errorf("%d token requests, want %d", n, test.requests)
			}
		})
	}
}

func TestUsername_EveryKindOfPrincipalLogsInAsItsRole(t *testing.T) {
	t.Parallel()
	tenant := server().Tenant
	team := tenant.NewGroup("dba team")
	createRole(t, server(), "", team)
	guest := tenant.NewGuest("bob@fabrikam.example")
	for _, test := range []struct {
		principal *entrapgtest.Principal
		user      string // empty if derived
		role      string
	}{
		{tenant.NewUser("alice@contoso.example"), "", "alice@contoso.example"},
		{guest, "", "bob_fabrikam.example#EXT#@contoso.example"},
		{tenant.NewUser("eve@contoso.example", team), "dba team", "dba team"},
		{tenant.NewUserAssignedIdentity("id-shop"), "", "id-shop"},
		{tenant.NewSystemAssignedIdentity("Microsoft.Compute/virtualMachines/vm-1"), "", "vm-1"},
		{tenant.NewSystemAssignedIdentity("Microsoft.Web/sites/shop/slots/blue"), "", "shop/slots/blue"},
		{tenant.NewServicePrincipal("Shop deployer"), "", "Shop deployer"},
	} {
		t.Run(string(test.principal.Kind)+" "+test.role, func(t *testing.T) {
			role := test.principal
			if test.user == "" {
				createRole(t, server(), "", role)
			}
			user := test.user
			if role == guest {
				user = role.Name // a guest's token does not contain the name of the role
			}
			db, _ := open(
				t,
				server().DSN(),
				entrapg.WithCredential(test.principal),
				entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.User = user }),
			)
			if got := sessionUser(t, db); got != test.role {
				t.Errorf("logged in as %q, want %q", got, test.role)
			}
		})
	}
}

func TestUsername_ErrorTellsGuestsToSetUser(t *testing.T) {
	guest := server().Tenant.NewGuest("live.com#" + long + "@outlook.example") // no role can have that name
	err := connect(t, entrapg.NewConnector(server().DSN(), entrapg.WithCredential(guest), entrapg.WithLogger(nil)))
	var username *entrapg.UsernameError
	if !errors.As(err, &username) || !strings.Contains(err.Error(), "#EXT#") ||
		!strings.HasSuffix(err.Error(), "set user= in the DSN to the role's name") {
		t.Errorf("got %v", err)
	}
}

func TestUsername_IsLookedUpOncePerIdentity(t *testing.T) {
	lookups := 0
	credential := credentialFunc(func(_ context.Context, scope string) (azcore.AccessToken, error) {
		claims := c{"oid": "0a"}
		if strings.Contains(scope, "management") {
			lookups++
			claims["xms_mirid"] = identities + "shop-api"
		}
		claims["iat"] = time.Now().Unix() // so that no two tokens are equal
		return azcore.AccessToken{Token: jwt(claims), ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		c := entrapg.NewConnector("host=127.0.0.1 sslmode=disable", s.options(), entrapg.WithCredential(credential))
		defer c.Close()
		for range 6 {
			mustConnect(t, c)
			time.Sleep(time.Hour)
		}
		if stats := c.Stats(); stats.TokenRequests != 7 || lookups != 1 || stats.User != "shop-api" {
			t.Errorf("%d lookups for 6 tokens, want 1; Stats: %+v", lookups, stats)
		}
	})
}

func TestUsername_FailedDerivationIsCached(t *testing.T) {
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: jwt(c{"oid": "0a"}), ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	c := entrapg.NewConnector("host=db.example.com", entrapg.WithCredential(credential))
	for range 10 {
		var username *entrapg.UsernameError
		if err := connect(t, c); !errors.As(err, &username) {
			t.Fatalf("got %v, want a UsernameError", err)
		}
	}
	if n := c.Stats().TokenRequests; n != 2 {
		t.Errorf("%d token requests for ten connections, want 2", n)
	}
}

func TestUsername_FailedLookupIsRetried(t *testing.T) {
	down := true
	credential := credentialFunc(func(_ context.Context, scope string) (azcore.AccessToken, error) {
		claims := c{"oid": "0a"}
		if strings.Contains(scope, "management") {
			if down {
				return azcore.AccessToken{}, errors.New("Entra is down")
			}
			claims["xms_mirid"] = identities + "shop-api"
		}
		return azcore.AccessToken{Token: jwt(claims), ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	s := &pipeServer{}
	c := entrapg.NewConnector("host=127.0.0.1 sslmode=disable", s.options(), entrapg.WithCredential(credential),
		entrapg.WithLogger(nil))
	if err := connect(t, c); err == nil {
		t.Fatal("the login succeeded")
	}
	down = false
	mustConnect(t, c)
	if user := c.Stats().User; user != "shop-api" {
		t.Errorf("user %q", user)
	}
}

func TestUsername_ErrorStatesCauseThenClaimsThenFix(t *testing.T) {
	credential := credentialFunc(func(_ context.Context, scope string) (azcore.AccessToken, error) {
		if strings.Contains(scope, "management") {
			return azcore.AccessToken{}, errors.New("Entra is down")
		}
		return azcore.AccessToken{Token: jwt(c{"oid": "0a", "aud": "x"}), ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	err := connect(t, entrapg.NewConnector("host=db.example.com", entrapg.WithCredential(credential)))
	const want = "entrapg: no PostgreSQL user: no claim of the token identifies one: " +
		"no token from entrapg_test.credentialFunc for https://management.azure.com/.default: Entra is down; " +
		"the token has the claims aud, oid; set user= in the DSN to the role's name"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestUsername_OpaqueTokenWorksIfUserIsSet(t *testing.T) {
	opaque := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: "opaque", ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	s := &pipeServer{}
	mustConnect(t, entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(opaque)))

	err := connect(t, entrapg.NewConnector("host=127.0.0.1 sslmode=disable", s.options(), entrapg.WithCredential(opaque)))
	var username *entrapg.UsernameError
	if !errors.As(err, &username) || !strings.Contains(err.Error(), "user=") || strings.Contains(err.Error(), "opaque") {
		t.Errorf("without a user: got %v, want a UsernameError that names the setting", err)
	}
}

func TestUsername_InvalidUserIsUsernameError(t *testing.T) {
	for name, c := range map[string]*entrapg.Connector{
		"too long": entrapg.NewConnector("host=db.example.com user=" + long),
		"NUL":      entrapg.NewConnector("host=db.example.com", entrapg.WithConnConfig(func(c *pgx.ConnConfig) { c.User = "a\x00b" })),
	} {
		var username *entrapg.UsernameError
		if err := connect(t, c); !errors.As(err, &username) || !strings.Contains(err.Error(), "user=") {
			t.Errorf("%s: got %v, want a UsernameError", name, err)
		}
	}
}
