package entrapgtest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/entrapg/entrapg/entrapgtest"
)

// A snapshot contains the values of a server that must not change between starts.
type snapshot struct {
	tenant, ca, app, appClient, objectID, host string
	service, user, guest                       string
	data                                       string
}

// startOnce starts a server with a state directory, takes a snapshot and closes it.
func startOnce(t *testing.T, dir string) snapshot {
	t.Helper()
	s := must[*entrapgtest.Server](t)(entrapgtest.Start(t.Context(), entrapgtest.Config{StateDir: dir}))
	defer s.Close()
	app := s.Tenant.NewUserAssignedIdentity("shop-api")
	deployer, alice, bob := s.Tenant.NewServicePrincipal(
		"deployer",
	), s.Tenant.NewUser(
		"alice@contoso.example",
	), s.Tenant.NewGuest(
		"bob@fabrikam.example",
	)
	admin := s.Tenant.NewUserAssignedIdentity("db-admin")
	if err := s.CreateAdmin(t.Context(), "", admin); err != nil {
		t.Fatal(err)
	}
	conn := must[*pgx.Conn](t)(session(t, s, admin))
	if _, err := conn.Exec(t.Context(), "create table if not exists public.kept (n int)"); err != nil {
		t.Fatal(err)
	}
	// The administrator creates this role at the first start. At the second one, it exists.
	_, _ = conn.Exec(t.Context(), "select pgaadauth_create_principal('shop-api', false, false)")
	app2 := must[*pgx.Conn](t)(session(t, s, app))
	if _, err := app2.Exec(t.Context(), "select"); err != nil {
		t.Error(err)
	}
	if _, err := conn.Exec(t.Context(), "insert into public.kept values (1)"); err != nil {
		t.Fatal(err)
	}
	var rows string
	if err := conn.QueryRow(t.Context(), "select count(*)::text from public.kept").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return snapshot{
		tenant: s.Tenant.ID, ca: string(must[[]byte](t)(os.ReadFile(s.CAFile()))), app: app.Name,
		appClient: app.ClientID, objectID: app.ObjectID,
		host: s.Tenant.NewHost(app).Environ()[1], service: deployer.ClientID + deployer.ClientSecret, user: alice.Password,
		guest: bob.Password, data: rows,
	}
}

func TestServer_StateDirKeepsTenantCertificateAndData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(directory(t), "state")
	first := startOnce(t, dir)
	second := startOnce(t, dir)
	if first.data != "1" || second.data != "2" {
		t.Errorf("rows: %s, then %s", first.data, second.data)
	}
	second.data = first.data
	if first != second {
		t.Errorf("first %+v, then %+v", first, second)
	}
	if other := startOnce(t, filepath.Join(directory(t), "other")); other.tenant == first.tenant ||
		other.service == first.service ||
		other.ca == first.ca {
		t.Errorf("another directory has the same: %+v", other)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "state.json": 0o600, "lock": 0o600, "data": 0o700} {
		if info := must[os.FileInfo](t)(os.Stat(filepath.Join(dir, name))); info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, want %v", name, info.Mode().Perm(), mode)
		}
	}
}

func TestServer_SecondServerReportsThatStateDirIsInUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(directory(t), "state")
	start(t, entrapgtest.Config{StateDir: dir})
	s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{StateDir: dir})
	if err == nil {
		s.Close()
	}
	var wrong *entrapgtest.ConfigError
	if !errors.As(err, &wrong) || wrong.Field != "StateDir" ||
		!strings.Contains(err.Error(), dir+" is in use by process") {
		t.Errorf("got %v", err)
	}
}

func TestServer_InterruptedFirstStartIsRepeated(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	for _, leftover := range []string{"state.json.new", "data.new/PG_VERSION", "data.new/base/1/1"} {
		path := filepath.Join(dir, leftover)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(`{"Version`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, entrapgtest.Config{StateDir: dir})
	if got := admin(t, s, "select 'works'"); got != "works" {
		t.Errorf("got %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "data.new")); err == nil {
		t.Error("the incomplete data was not removed")
	}
}

func TestServer_DamagedStateDirIsReported(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"truncated":      {map[string]string{"state.json": `{"Version": 1, "Se`}, "state.json is damaged: unexpected end of JSON input"},
		"empty":          {map[string]string{"state.json": ""}, "state.json is damaged"},
		"short seed":     {map[string]string{"state.json": `{"Version": 1, "Seed": "AAAA"}`}, "damaged: the seed is incomplete"},
		"later version":  {map[string]string{"state.json": `{"Version": 7}`}, "version 7"},
		"foreign":        {map[string]string{"letter.txt": "Dear"}, "contains letter.txt but no state.json"},
		"data alone":     {map[string]string{"data/PG_VERSION": "15\n"}, "contains data but no state.json"},
		"file, not data": {map[string]string{"data.new": "", "mine.new": ""}, "contains mine.new"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := directory(t)
			for name, content := range test.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{StateDir: dir})
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "Config.StateDir: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
			for name, content := range test.files {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != content {
					t.Errorf("%s: %q, %v", name, b, err)
				}
			}
		})
	}
}

func TestServer_DataOfAnotherPostgreSQLIsReported(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(directory(t), "state")
	startOnce(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{StateDir: dir})
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "contains the data of PostgreSQL 9") {
		t.Errorf("got %v", err)
	}
}

func TestServer_WaitReportsThatPostgreSQLEnded(t *testing.T) {
	t.Parallel()
	s := must[*entrapgtest.Server](t)(entrapgtest.Start(t.Context(), entrapgtest.Config{}))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("while it runs: %v", err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("after a restart: %v", err)
	}
	pid := admin(t, s, "select split_part(pg_read_file('postmaster.pid'), chr(10), 1)")
	kill(t, pid)
	if err := s.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "PostgreSQL ended: ") {
		t.Errorf("after a kill: %v", err)
	}
	_ = s.Close()
	if err := s.Wait(t.Context()); err != nil {
		t.Errorf("after Close: %v", err)
	}
}

func TestServer_AddressInUseNamesField(t *testing.T) {
	taken := startFront(t, entrapgtest.Config{}).Addr()
	for field, config := range map[string]entrapgtest.Config{
		"Addr": {Addr: taken}, "TenantAddr": {TenantAddr: taken}, "IdentityAddr": {IdentityAddr: taken}, "Upstream": {Upstream: "port=x"},
	} {
		if field != "Upstream" {
			config.Upstream = share(t).AdminDSN()
		}
		s, err := entrapgtest.Start(t.Context(), config)
		if err == nil {
			s.Close()
		}
		var wrong *entrapgtest.ConfigError
		if !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// directory returns a temporary directory that the user who runs PostgreSQL can enter. Only
// the owner's group can enter those of t.TempDir.
func directory(t *testing.T) string {
	t.Helper()
	dir := must[string](t)(os.MkdirTemp("", "entrapgtest-"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// kill ends a process like a crash.
func kill(t *testing.T, pid string) {
	t.Helper()
	p := must[*os.Process](t)(os.FindProcess(must[int](t)(strconv.Atoi(pid))))
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
}

// The owner of the directory could replace the state's files by links to other files.
func TestServer_StateDirOfAnotherUserIsRejected(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can create a directory of another user")
	}
	dir := directory(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("mine"), 0o600), os.Symlink(victim, filepath.Join(dir, "lock")),
		os.Chown(dir, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	if _, err := entrapgtest.Start(t.Context(), entrapgtest.Config{StateDir: dir}); err == nil ||
		!strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("got %v", err)
	}
	if content, err := os.ReadFile(victim); err != nil || string(content) != "mine" {
		t.Errorf("the file is now %q, %v", content, err)
	}
}
