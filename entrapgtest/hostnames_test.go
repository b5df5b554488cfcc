package entrapgtest_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/entrapgtest"
)

// everywhere listens on all addresses.
func everywhere(hostnames ...string) entrapgtest.Config {
	return entrapgtest.Config{Addr: "0.0.0.0:0", TenantAddr: "[::]:0", IdentityAddr: ":0", Hostnames: hostnames}
}

func TestHostnames_HostnameIsInEveryAddress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		config entrapgtest.Config
		want   string
	}{
		{everywhere(), "127.0.0.1"},
		{everywhere("emulator", "db"), "emulator"},
		{everywhere("*.example", "emulator_1"), "emulator_1"},
		{everywhere("2001:db8::1"), "2001:db8::1"},
		{entrapgtest.Config{Hostnames: []string{"emulator"}}, "127.0.0.1"},
	} {
		s := startFront(t, test.config)
		app := s.Tenant.NewUserAssignedIdentity("reach-api")
		_, endpoint, _ := strings.Cut(s.Tenant.NewHost(app).Environ()[0], "=")
		_, authority, _ := strings.Cut(s.Tenant.NewServicePrincipal("reach-jobs").Environ()[0], "=")
		for what, text := range map[string]string{
			"DSN": s.DSN(), "tenant": s.Tenant.URL(), "endpoint": endpoint,
			"authority": authority,
		} {
			u, err := url.Parse(text)
			if err != nil || u.Hostname() != test.want || u.Port() == "" {
				t.Errorf("%q: %s is %s, want host %s: %v", test.config.Hostnames, what, text, test.want, err)
			}
		}
	}
}

// The client stands for one on another machine, which resolves the name.
func TestHostnames_NameIsVerified(t *testing.T) {
	t.Parallel()
	s := startFront(t, everywhere("emulator.invalid", "192.0.2.1"))
	app := s.Tenant.NewUserAssignedIdentity("reach-app")
	createRole(t, s, "", app)
	for _, host := range []string{"emulator.invalid", "192.0.2.1"} {
		config := must[*pgx.ConnConfig](t)(pgx.ParseConfig(strings.Replace(s.DSN(), "emulator.invalid", host, 1)))
		config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
		config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		}
		config.User, config.Password = app.Name, token(t, app, audience).Token
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		conn.Close(t.Context())
	}
}

func TestHostnames_CredentialsInTheProcessNeedNoName(t *testing.T) {
	t.Parallel()
	s := startFront(t, everywhere("emulator.invalid"))
	jobs, app := s.Tenant.NewServicePrincipal("reach-jobs"), s.Tenant.NewUserAssignedIdentity("reach-api")
	service := must[*azidentity.ClientSecretCredential](t)(azidentity.NewClientSecretCredential(s.Tenant.ID,
		jobs.ClientID, jobs.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: s.Tenant.ClientOptions(), DisableInstanceDiscovery: true}))
	options := &azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID(app.ClientID)}
	options.Transport = s.Tenant.NewHost(app).Client()
	managed := must[*azidentity.ManagedIdentityCredential](t)(azidentity.NewManagedIdentityCredential(options))
	for _, credential := range []azcore.TokenCredential{service, managed} {
		if _, err := credential.GetToken(t.Context(),
			policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}}); err != nil {
			t.Error(err)
		}
	}
}

func TestHostnames_InvalidHostnamesAreReported(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "emulator:15432", "https://emulator", "a b", "-a", "a..b", "a.*.b", "a/b",
		strings.Repeat("a", 254),
	} {
		s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{Hostnames: []string{"good", name}})
		var wrong *entrapgtest.ConfigError
		if !errors.As(err, &wrong) || wrong.Field != "Hostnames" ||
			!strings.Contains(err.Error(), "is neither a host name nor an IP address") {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			s.Close()
		}
	}
}
