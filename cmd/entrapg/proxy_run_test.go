package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg/cmd/entrapg/internal/command"
	"github.com/entrapg/entrapg/cmd/entrapg/internal/quote"
	"github.com/entrapg/entrapg/entrapgtest"
)

// A runningProxy is the command proxy as a process.
type runningProxy struct {
	cmd      *exec.Cmd
	out, log *transcript // standard output, standard error
	password string      // generated
	ended    chan struct{}
}

// A transcript contains the output of a process.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *transcript) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *transcript) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var generated = regexp.MustCompile(`PGPASSWORD='?([A-Z0-9]{26})\b`)

// startProxy starts the proxy and waits until it is ready.
func startProxy(t *testing.T, env []string, args ...string) *runningProxy {
	t.Helper()
	p := newProxy(t, env, args...)
	p.start(t)
	return p
}

func newProxy(t *testing.T, env []string, args ...string) *runningProxy {
	t.Helper()
	p := &runningProxy{out: &transcript{}, log: &transcript{}, ended: make(chan struct{})}
	p.cmd, _, _ = program(t, append([]string{"proxy"}, args...)...)
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.log
	return p
}

func (p *runningProxy) start(t *testing.T) {
	t.Helper()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
	})
	printed := func() string { return p.out.String() + p.log.String() }
	await(t, func() bool {
		select {
		case <-p.ended:
			t.Fatalf("the proxy ended with %s:\n%s", p.cmd.ProcessState, printed())
		default:
		}
		return strings.Contains(p.out.String(), "Ctrl-C stops the proxy")
	}, printed)
	if found := generated.FindStringSubmatch(p.out.String()); found != nil {
		p.password = found[1]
	}
}

var statusLog = regexp.MustCompile(`answering probes and scrapes" listen=(\S+)`)

// status returns the address of --status, when the proxy has logged it.
func (p *runningProxy) status(t *testing.T) (addr string) {
	t.Helper()
	await(t, func() bool {
		logged := statusLog.FindStringSubmatch(p.log.String())
		if logged != nil {
			addr = logged[1]
		}
		return logged != nil
	}, p.log.String)
	return addr
}

// addr returns the n-th address that the proxy printed.
func (p *runningProxy) addr(n int) string {
	return regexp.MustCompile(`(?m)^✓ (\S+) → `).FindAllStringSubmatch(p.out.String(), -1)[n][1]
}

// dsn returns the connection string of a client without TLS over TCP.
func (p *runningProxy) dsn(settings string) string {
	host, port, _ := net.SplitHostPort(p.addr(0))
	dsn := fmt.Sprintf("host=%s port=%s dbname=postgres sslmode=disable user=anyone connect_timeout=60 ", host, port)
	if p.password != "" {
		dsn += "password=" + p.password + " "
	}
	return dsn + settings
}

// connect returns a pool of a client that does not support Entra.
func (p *runningProxy) connect(t *testing.T, settings string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", p.dsn(settings))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// signal sends a signal and returns the exit code, if the proxy ends in time.
func (p *runningProxy) signal(t *testing.T, s os.Signal) int {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not have these signals")
	}
	p.cmd.Process.Signal(s)
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		t.Fatalf("the proxy has not ended:\n%s", p.log)
		return 0
	}
}

func ask(t *testing.T, db *sql.DB, query string, args ...any) string {
	t.Helper()
	var answer string
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestProxy_LogsInClientsThatKnowThePassword(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "proxy-password", true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0")
	if p.password == "" {
		t.Fatalf("no password was printed:\n%s", p.out)
	}
	db := p.connect(t, "application_name=shop options='-c search_path=elsewhere'")
	if got := ask(t, db, "select session_user || ' ' || current_setting('application_name') || ' ' || current_setting('search_path')"); got != "proxy-password shop elsewhere" {
		t.Errorf("got %q", got)
	}
	for _, wrong := range []string{"password=wrong", "password=''", "password=" + strings.ToLower(p.password)} {
		var n int
		err := p.connect(t, wrong).QueryRow("select 1").Scan(&n)
		if err == nil || !strings.Contains(err.Error(), "28P01") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	db.Close()
	await(t, func() bool { return strings.Contains(p.log.String(), "session ended") }, p.log.String)
	if code := p.signal(t, syscall.SIGTERM); code != command.Done {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
	if log := p.log.String(); strings.Contains(log, p.password) || strings.Contains(log, "eyJ") {
		t.Errorf("the log shows a secret:\n%s", log)
	}
}

func TestProxy_PrintedCommandConnects(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the command is for PowerShell")
	}
	psql := installed(t, "psql")
	_, env := identityWith(t, azureServer(t), "proxy-printed", true)
	dir := shortDir(t)
	p := startProxy(t, env, "--listen", "127.0.0.1:0", "--listen", dir)
	commands := regexp.MustCompile(`(?m)^ .*psql .*$`).FindAllString(p.out.String(), -1)
	if len(commands) != 2 {
		t.Fatalf("%q in\n%s", commands, p.out)
	}
	for _, command := range commands {
		sh := exec.CommandContext(t.Context(), "sh", "-c", command+" -XAtc 'select session_user'")
		sh.Env = append(os.Environ(), "PATH="+filepath.Dir(psql)+":"+os.Getenv("PATH"), "PGSSLMODE=verify-full", "PGDATABASE=elsewhere")
		if out, err := sh.CombinedOutput(); err != nil || string(out) != "proxy-printed\n" {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
}

// shortDir returns a directory with a path that is short enough for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Unix sockets are not supported on Windows")
	}
	dir, err := os.MkdirTemp("", "px")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestProxy_UnixSocketIsForItsOwnerAndRemoved(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "proxy-socket", true)
	dir := shortDir(t)
	p := startProxy(t, env, "--listen", dir)
	if p.password != "" {
		t.Errorf("a password was generated:\n%s", p.out)
	}
	info, err := os.Stat(filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	db, err := sql.Open("pgx", "host="+dir+" dbname=postgres user=anyone")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := ask(t, db, "select session_user"); got != "proxy-socket" {
		t.Errorf("got %q", got)
	}
	db.Close()
	if code := p.signal(t, os.Interrupt); code != command.Done {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
	if entries := left(t, dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestProxy_SessionsOutliveTokens(t *testing.T) {
	t.Parallel()
	s := shortTokens(t)
	_, env := identityWith(t, s, "proxy-outlive", true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0", "--trust")
	conn := p.logInWithShortToken(t, s)
	session := ask(t, conn, "select pg_backend_pid()::text")
	for start := time.Now(); time.Since(start) <= shortLife; time.Sleep(100 * time.Millisecond) {
		if got := ask(t, conn, "select pg_backend_pid()::text"); got != session {
			t.Fatalf("the open session is %s, want %s", got, session)
		}
		fresh := p.connect(t, "")
		if got := ask(t, fresh, "select session_user"); got != "proxy-outlive" {
			t.Fatalf("got %q", got)
		}
		fresh.Close()
	}
	if n := s.Tenant.RequestsFor(publicResource); n < 2 {
		t.Errorf("%d tokens were requested", n)
	}
}

// shortLife is the lifetime of the tokens of shortTokens.
const shortLife = 2 * time.Second

// shortTokens starts a server whose tokens are valid for 2 seconds until longTokens.
func shortTokens(t *testing.T) *entrapgtest.Server {
	t.Helper()
	s := ownServer(t)
	s.SetFaults(entrapgtest.Faults{TokenLife: shortLife})
	return s
}

// longTokens makes s issue tokens that are valid for an hour, so that a slow machine cannot
// outlast the token that replaces a short one.
func longTokens(s *entrapgtest.Server) { s.SetFaults(entrapgtest.Faults{}) }

// ownServer starts a server with its own tenant and faults, in front of the PostgreSQL of
// azureServer.
func ownServer(t *testing.T) *entrapgtest.Server {
	t.Helper()
	s, err := entrapgtest.Start(t.Context(), entrapgtest.Config{Upstream: azureServer(t).AdminDSN()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// logInWithShortToken returns a pool with an open session, which logged in with a token of
// shortTokens. Tokens that follow are valid for an hour.
func (p *runningProxy) logInWithShortToken(t *testing.T, s *entrapgtest.Server) *sql.DB {
	t.Helper()
	db := p.connect(t, "")
	await(t, func() bool { return db.PingContext(t.Context()) == nil }, p.log.String) // on a slow machine, it expires on its way
	longTokens(s)
	return db
}

func TestProxy_EachFrontHasItsUpstream(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	one, _ := identityWith(t, s, "proxy-one", true)
	two, _ := identityWith(t, s, "proxy-two", true)
	three, _ := identityWith(t, s, "proxy-three", true)
	env := append(s.Tenant.NewHost(one, two, three).Environ(), "ENTRAPG_PROXY_TRUST=true", "AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential")
	dsn := func(p *entrapgtest.Principal) string {
		return s.DSN() + "&entra_credential=managedidentity&entra_client_id=" + p.ClientID
	}
	config := filepath.Join(t.TempDir(), "proxy.conf")
	if err := os.WriteFile(config, []byte("# a comment\n127.0.0.1:0 = "+dsn(three)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "ENTRAPG_PROXY_CONFIG="+config, "ENTRAPG_PROXY_LISTEN=127.0.0.1:0="+dsn(one)+"\n127.0.0.1:0")
	p := startProxy(t, env, dsn(two))
	for i, want := range []string{"proxy-one", "proxy-two", "proxy-three"} {
		host, port, _ := net.SplitHostPort(p.addr(i))
		db := p.connect(t, "host="+host+" port="+port)
		if got := ask(t, db, "select session_user"); got != want {
			t.Errorf("%s: %q, want %q", p.addr(i), got, want)
		}
	}
}

func TestProxy_ClientUserIsUsedOnlyOnRequest(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "proxy-users", true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0", "--trust", "--client-user")
	if got := ask(t, p.connect(t, "user=proxy-users"), "select session_user"); got != "proxy-users" {
		t.Errorf("got %q", got)
	}
	var got string
	if err := p.connect(t, "user=proxy-password").QueryRow("select session_user").Scan(&got); err == nil ||
		!strings.Contains(err.Error(), "28000") {
		t.Errorf("another identity's role: %q, %v", got, err)
	}
}

func TestProxy_RemoteClientsNeedTLSAndPassword(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "proxy-remote", true)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeCertificate(t, certFile, keyFile)
	passwordFile := filepath.Join(dir, "password")
	if err := os.WriteFile(passwordFile, []byte("of the proxy\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, env, "--listen", "0.0.0.0:0", "--allow-remote", "--password-file", passwordFile,
		"--tls-cert", certFile, "--tls-key", keyFile)
	if strings.Contains(p.out.String()+p.log.String(), "of the proxy") {
		t.Errorf("the password is shown:\n%s%s", p.out, p.log)
	}
	if runtime.GOOS != "windows" {
		await(t, func() bool { return strings.Contains(p.log.String(), "readable by every user") }, p.log.String)
	}
	const password = "host=127.0.0.1 password='of the proxy' "
	if got := ask(t, p.connect(t, password+"sslmode=verify-full "+quote.DSNSetting(false, "sslrootcert", certFile)), "select session_user"); got != "proxy-remote" {
		t.Errorf("got %q", got)
	}
	for settings, want := range map[string]string{
		password + "sslmode=disable": "28000",
		"host=127.0.0.1 password=wrong sslmode=verify-full " + quote.DSNSetting(false, "sslrootcert", certFile): "28P01",
	} {
		var n int
		if err := p.connect(t, settings).QueryRow("select 1").Scan(&n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", settings, err, want)
		}
	}
	old, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, certFile, keyFile) // like cert-manager
	p.cmd.Process.Signal(syscall.SIGHUP)   // reloads the certificate, and does not end the proxy
	renewed := p.connect(t, password+"sslmode=verify-full "+quote.DSNSetting(false, "sslrootcert", certFile))
	if got := ask(t, renewed, "select session_user"); got != "proxy-remote" {
		t.Errorf("got %q", got)
	}
	oldFile := filepath.Join(dir, "old.crt")
	if err := os.WriteFile(oldFile, old, 0o600); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := p.connect(t, password+"sslmode=verify-full "+quote.DSNSetting(false, "sslrootcert", oldFile)).QueryRow("select 1").Scan(&n); err == nil {
		t.Error("the old certificate is still in use")
	}
}

func TestProxy_ReadsPasswordFileAgainAtHangup(t *testing.T) {
	needsSignals(t)
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "proxy-rotated", true)
	file := write(t, "password", "first\n")
	p := startProxy(t, env, "--listen", "127.0.0.1:0", "--password-file", file)
	open := p.connect(t, "password=first")
	if got := ask(t, open, "select session_user"); got != "proxy-rotated" {
		t.Errorf("got %q", got)
	}
	accepts := func(password string) bool {
		db := p.connect(t, "password="+password)
		defer db.Close()
		err := db.Ping()
		if err != nil && !strings.Contains(err.Error(), "28P01") {
			t.Error(err)
		}
		return err == nil
	}
	for _, step := range []struct{ content, log, accepted, rejected string }{
		{"second\n", "read the password again", "second", "first"},
		{"\n", "the password cannot be read again", "second", "first"},
	} {
		if err := os.WriteFile(file, []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		p.cmd.Process.Signal(syscall.SIGHUP)
		await(t, func() bool { return strings.Contains(p.log.String(), step.log) }, p.log.String)
		if !accepts(step.accepted) || accepts(step.rejected) {
			t.Errorf("after %q, the accepted password is not %q:\n%s", step.content, step.accepted, p.log)
		}
	}
	if got := ask(t, open, "select session_user"); got != "proxy-rotated" {
		t.Errorf("got %q", got)
	}
	if strings.Contains(p.log.String(), "second") {
		t.Errorf("the password is shown:\n%s", p.log)
	}
}

func TestProxy_SessionsEndInGracePeriod(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "proxy-grace", true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0", "--grace", "10m", "--status", "127.0.0.1:0")
	status := p.status(t)
	if got := get(t, status, "/readiness"); got != "200 ready\n" {
		t.Errorf("readiness: %s", got)
	}
	db := p.connect(t, "")
	session := ask(t, db, "select pg_backend_pid()::text")
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not have these signals")
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	await(t, func() bool { return strings.Contains(get(t, status, "/readiness"), "503 draining") }, p.log.String)
	for path, want := range map[string]string{"/startup": "200 started\n", "/liveness": "200 alive\n"} {
		if got := get(t, status, path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	await(t, func() bool {
		c, err := net.Dial("tcp", p.addr(0))
		if err == nil {
			c.Close()
		}
		return err != nil
	}, p.log.String)
	if got := ask(t, db, "select pg_backend_pid()::text"); got != session {
		t.Errorf("got session %s, want %s", got, session)
	}
	db.Close()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Fatalf("the proxy has not ended:\n%s", p.log)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != command.Done {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
}

// get returns the status and the body of an answer over HTTP.
func get(t *testing.T, addr, path string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, body)
}

func TestProxy_ClosesSessionsAfterGraceAndAtSecondSignal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not have these signals")
	}
	_, env := identityWith(t, azureServer(t), "proxy-close", true)
	for name, test := range map[string]struct {
		grace   string
		signals int
		code    int
	}{
		"grace period ends": {"100ms", 1, command.Done},
		"second signal":     {"1h", 2, command.Failed},
	} {
		p := startProxy(t, env, "--listen", "127.0.0.1:0", "--grace", test.grace)
		db := p.connect(t, "")
		running := make(chan error)
		go func() {
			_, err := db.ExecContext(context.WithoutCancel(t.Context()), "select pg_sleep(3600)")
			running <- err
		}()
		await(t, func() bool {
			var n int
			err := db.QueryRowContext(t.Context(), "select count(*) from pg_stat_activity where usename = 'proxy-close' "+
				"and query like 'select pg_sleep%' and pid <> pg_backend_pid()").Scan(&n)
			return err == nil && n > 0
		}, p.log.String)
		p.cmd.Process.Signal(syscall.SIGTERM)
		for range test.signals - 1 {
			await(t, func() bool { return strings.Contains(p.log.String(), "msg=stopping") }, p.log.String)
			p.cmd.Process.Signal(syscall.SIGTERM)
		}
		<-p.ended
		if code := p.cmd.ProcessState.ExitCode(); code != test.code {
			t.Errorf("%s: exit code %d, want %d:\n%s", name, code, test.code, p.log)
		}
		if err := <-running; err == nil {
			t.Errorf("%s: the query ended without an error", name)
		}
	}
}

func TestProxy_CheckLogsInOnceOnEachUpstream(t *testing.T) {
	t.Parallel()
	s := azureServer(t)
	_, env := identityWith(t, s, "proxy-check", true)
	before := len(s.Logins())
	r := runAs(t, env, "proxy", "--check", "--listen", "127.0.0.1:1")
	if r.code != command.Done || !strings.Contains(r.stdout, "logged in as proxy-check") || strings.Contains(r.stdout, "PGPASSWORD") {
		t.Errorf("%+v", r)
	}
	accepted := 0
	for _, l := range s.Logins()[before:] {
		if l.User == "proxy-check" && l.Accepted {
			accepted++
		}
	}
	if accepted != 1 {
		t.Errorf("%d logins, want 1", accepted)
	}
	r = runAs(t, env, "proxy", "--check", "--listen", "1", "--listen", "2=host=127.0.0.1 port=1 sslmode=verify-full user=nobody")
	if r.code != command.Failed || !strings.Contains(r.stdout, "logged in as proxy-check") || !strings.Contains(r.stdout, "✗ 127.0.0.1:1") {
		t.Errorf("%+v", r)
	}
	file := filepath.Join(t.TempDir(), "proxy.env")
	if err := os.WriteFile(file, []byte("DATABASE_URL='host=127.0.0.1 port=1 user=nobody'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   []string
		doctor string
	}{
		{nil, "entrapg doctor"},
		{[]string{s.DSN() + "&user=nobody"}, "entrapg doctor DSN"},
		{[]string{"--listen", "5432=" + s.DSN() + "&user=nobody"}, "entrapg doctor DSN"},
		{[]string{"--env-file", file}, "entrapg doctor --env-file " + file},
	} {
		r := runAs(t, append(env, "DATABASE_URL="+s.DSN()+"&user=nobody&connect_timeout=9"), append([]string{"proxy", "--check"}, test.args...)...)
		if r.code != command.Failed || !strings.HasSuffix(r.stdout, "\n  run '"+test.doctor+"' for an explanation and the fix\n") {
			t.Errorf("%q: %+v", test.args, r)
		}
	}
}

func TestProxy_ReadinessFailsWithoutTokenAndRecovers(t *testing.T) {
	t.Parallel()
	s := ownServer(t)
	_, env := identityWith(t, s, "proxy-readiness", true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--ready-without-token", "1s")
	status := p.status(t)
	s.SetFaults(entrapgtest.Faults{EntraDown: true})
	ready := func() string { return get(t, status, "/readiness") }
	if got := ready(); got != "200 ready\n" {
		t.Errorf("an idle proxy: %s", got)
	}
	var n int
	err := p.connect(t, "").QueryRow("select 1").Scan(&n)
	if err == nil || !strings.Contains(err.Error(), "SQLSTATE") {
		t.Errorf("a client without a token gets %v", err)
	}
	await(t, func() bool { return strings.HasPrefix(ready(), "503 no token for 127.0.0.1:") }, ready)
	if got := get(t, status, "/liveness"); got != "200 alive\n" {
		t.Errorf("liveness: %s", got)
	}
	metrics := func() string { return get(t, status, "/metrics") }
	failures := regexp.MustCompile(`(?m)^entrapg_token_failures_total\{.*\} [1-9]`)
	rejections := regexp.MustCompile(`(?m)^entrapg_proxy_rejections_total\{.*reason="token"\} 1$`)
	await(t, func() bool {
		text := metrics()
		return failures.MatchString(text) && rejections.MatchString(text)
	}, metrics)
	s.SetFaults(entrapgtest.Faults{})
	await(t, func() bool { return ready() == "200 ready\n" }, ready) // even if no client logs in
}

func TestProxy_MetricsCountSessions(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "proxy-metrics", true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--max-connections", "7")
	status := p.status(t)
	db := p.connect(t, "")
	ask(t, db, "select repeat('x', 100000)")
	metrics := func() string { return get(t, status, "/metrics") }
	for _, want := range []string{
		`entrapg_proxy_connections\{listen="127.0.0.1:\d+",upstream="127.0.0.1:\d+/postgres"\} 1`,
		`entrapg_proxy_max_connections 7`,
		`entrapg_proxy_sessions_total\{.*\} 1`,
		`entrapg_proxy_login_duration_seconds_count\{.*\} 1`,
		`entrapg_proxy_sent_bytes_total\{.*\} 10\d{4}`,
		`entrapg_proxy_received_bytes_total\{.*\} [1-9]\d*`,
		`entrapg_token_requests_total\{upstream="127.0.0.1:\d+/postgres"\} [1-9]`,
		`entrapg_token_expiry_timestamp_seconds\{.*\} \d{10}`,
	} {
		shown := regexp.MustCompile(`(?m)^` + want + `$`)
		await(t, func() bool { return shown.MatchString(metrics()) }, func() string { return want + "\n" + metrics() })
	}
	db.Close()
	closed := regexp.MustCompile(`(?m)^entrapg_proxy_connections\{.*\} 0$`)
	await(t, func() bool { return closed.MatchString(metrics()) }, metrics)
}

func TestProxy_NotifiesSystemd(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(shortDir(t), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	var states transcript
	go func() { // the socket's queue has room for few states
		state := make([]byte, 100)
		for {
			n, err := systemd.Read(state)
			if err != nil {
				return
			}
			fmt.Fprintf(&states, "%s\n", state[:n])
		}
	}()
	received := func(pattern string) {
		t.Helper()
		await(t, func() bool { return regexp.MustCompile(pattern).MatchString(states.String()) }, states.String)
	}
	_, env := identityWith(t, azureServer(t), "proxy-systemd", true)
	p := startProxy(t, append(env, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=500000"), "--listen", "127.0.0.1:0")
	received(`^READY=1\n(WATCHDOG=1\n){2,}$`)
	p.signal(t, syscall.SIGTERM)
	received(`^READY=1\n(WATCHDOG=1\n){2,}STOPPING=1\n(WATCHDOG=1\n)*$`)
}

func TestProxy_LogThatCannotBeWrittenStopsNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has /dev/full")
	}
	_, env := identityWith(t, azureServer(t), "proxy-log", true)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	broken, brokenWriter := pipe()
	broken.Close()
	_, unread := pipe()
	for n := 0; n == 0; { // the first write that begins before its deadline fills the pipe
		unread.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, _ = unread.Write(make([]byte, 1<<20))
	}
	for name, stderr := range map[string]*os.File{"full disk": full, "closed pipe": brokenWriter, "pipe that nobody reads": unread} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, env, "--listen", "127.0.0.1:0", "--grace", "10ms")
			p.cmd.Stderr = stderr
			p.start(t)
			if err := p.connect(t, "password=wrong").Ping(); err == nil || !strings.Contains(err.Error(), "28P01") {
				t.Fatal(err)
			}
			if got := ask(t, p.connect(t, ""), "select session_user"); got != "proxy-log" {
				t.Errorf("got %q", got)
			}
			if code := p.signal(t, syscall.SIGTERM); code != command.Done {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestProxy_LogIsJSONOnRequest(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "proxy-json", true)
	p := startProxy(t, env, "--listen", "127.0.0.1:0", "--log-format", "json")
	db := p.connect(t, "application_name='a\u0007b'")
	if got := ask(t, db, "select session_user"); got != "proxy-json" {
		t.Errorf("got %q", got)
	}
	db.Close()
	await(t, func() bool {
		return regexp.MustCompile(`(?m)^\{.*"msg":"[^"]*session ended".*"role":"proxy-json".*\}$`).MatchString(p.log.String())
	}, p.log.String)
	if !strings.Contains(p.log.String(), `session ended","listen":"`+p.addr(0)+`"`) {
		t.Errorf("the log does not name the address of the session:\n%s", p.log)
	}
	if strings.Contains(p.log.String(), "\a") {
		t.Errorf("the log contains a BEL character: %q", p.log)
	}
}

func TestProxy_WarnsOfReadableFileOnlyIfItHasPassword(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not have these permissions")
	}
	for settings, warned := range map[string]bool{"": false, " entra_credential=none user=shop password=hidden": true} {
		config := filepath.Join(t.TempDir(), "proxy.conf")
		if err := os.WriteFile(config, []byte("127.0.0.1:0 = host=db.example"+settings+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := startProxy(t, nil, "--config", config)
		p.signal(t, syscall.SIGTERM)
		if log := p.log.String(); strings.Contains(log, "readable by every user") != warned || strings.Contains(log+p.out.String(), "hidden") {
			t.Errorf("%q:\n%s", settings, log)
		}
	}
}

func TestProxy_ExplainsAddressInUse(t *testing.T) {
	t.Parallel()
	_, env := identityWith(t, azureServer(t), "proxy-in-use", false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, flag := range []string{"--listen", "--status"} {
		args := []string{"proxy", flag, l.Addr().String()}
		if flag == "--status" {
			args = append(args, "--listen", "127.0.0.1:0")
		}
		r := runAs(t, env, args...)
		if r.code != command.Failed || !strings.Contains(r.stderr, flag+" "+l.Addr().String()) || !strings.Contains(r.stderr, "choose another port") {
			t.Errorf("%s: %+v", flag, r)
		}
	}
}
