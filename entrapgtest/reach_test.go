package entrapgtest_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
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

func TestReach_HostnameIsInEveryAddress(t *testing.T) {
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
func TestReach_NameIsVerified(t *testing.T) {
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

func TestReach_CredentialsInTheProcessNeedNoName(t *testing.T) {
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

func TestReach_InvalidHostnamesAreReported(t *testing.T) {
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

func TestCAFile_IsSharedWhileTheServerRuns(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ca.pem")
	first := startFront(t, entrapgtest.Config{CAFile: path})
	if first.CAFile() != path || !strings.Contains(first.DSN(), "ca.pem") {
		t.Errorf("%s, %s", first.CAFile(), first.DSN())
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o644 {
		t.Errorf("%v: %v", err, info)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

func TestCAFile_OfAnEarlierServerIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ca.pem")
	first := startFront(t, entrapgtest.Config{CAFile: path})
	old := must[[]byte](t)(os.ReadFile(path))
	second := startFront(t, entrapgtest.Config{CAFile: path})
	if now := must[[]byte](t)(os.ReadFile(path)); string(now) == string(old) {
		t.Error("the file is that of the first server")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the first server removed the file of the second one: %v", err)
	}
	second.Close()
}

func TestCAFile_KeepsOtherFiles(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "my key\n"} {
		path := filepath.Join(t.TempDir(), "own.pem")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := entrapgtest.Start(t.Context(), entrapgtest.Config{CAFile: path})
		var wrong *entrapgtest.ConfigError
		if !errors.As(err, &wrong) || wrong.Field != "CAFile" || !strings.Contains(err.Error(), "already exists") {
			t.Errorf("%q: %v", content, err)
		}
		if now := must[[]byte](t)(os.ReadFile(path)); string(now) != content {
			t.Errorf("%q is now %q", content, now)
		}
	}
}

func TestCAFile_KeepsFilesBesideIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path+".new"); err != nil {
		t.Skip(err)
	}
	startFront(t, entrapgtest.Config{CAFile: path})
	if now := must[[]byte](t)(os.ReadFile(victim)); string(now) != "mine" {
		t.Errorf("the file is now %q", now)
	}
}
