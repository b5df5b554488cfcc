package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/entrapgtest"
)

// The columns of the proxy's table.
const (
	direct    = "direct"
	pgBouncer = "PgBouncer"
	proxied   = "entrapg proxy"
)

// A proxyBench is a PostgreSQL with TLS, with PgBouncer and entrapg proxy in front of it.
// All three log in with a password, because PgBouncer does not support tokens. It compares
// only the relays.
type proxyBench struct {
	dir     string // of certificates and settings
	server  *entrapgtest.Server
	network string // of all addresses, without the last number
	host    string // that PostgreSQL listens on
	roots   *x509.CertPool
	dsns    map[string]string // in libpq's form, by column
	process map[string]*exec.Cmd
	short   bool
}

const proxyPassword = "benchmark"

// newProxyBench returns a bench without processes. Each gets a separate loopback address, which
// Linux has, so that the usual ports remain free. The network is random, so that two benchmarks
// can run at the same time.
func newProxyBench() *proxyBench {
	network := fmt.Sprintf("127.83.%d.", mathrand.IntN(256))
	return &proxyBench{
		network: network, host: network + "1", roots: x509.NewCertPool(),
		dsns: map[string]string{}, process: map[string]*exec.Cmd{},
	}
}

// startProxyBench starts all three.
func startProxyBench(ctx context.Context, short bool) (_ *proxyBench, err error) {
	bouncer, err := exec.LookPath("pgbouncer")
	if err != nil { // not on the PATH of every user on Debian
		if bouncer, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return nil, fmt.Errorf("scripts/install-pgbouncer.sh installs PgBouncer: %w", err)
		}
	}
	for _, name := range []string{"pgbench", "psql"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	b := newProxyBench()
	b.short = short
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.dir, err = os.MkdirTemp("", "entrapg-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { // PgBouncer and pgbench may run as another user
		return nil, err
	}
	if b.server, err = entrapgtest.Start(ctx, entrapgtest.Config{}); err != nil {
		return nil, err
	}
	if err := b.listen(ctx); err != nil {
		return nil, err
	}
	ca := filepath.Join(b.dir, "ca.pem")
	b.dsns[direct] = b.directDSN()
	if out, err := b.command(ctx, "pgbench", "--initialize", "--quiet", "--scale="+pick(short, "1", "10"),
		b.dsns[direct]).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	if err := b.startBouncer(ctx, bouncer, ca); err != nil {
		return nil, err
	}
	return b, b.startProxy(ctx)
}

// directDSN returns the DSN of the server.
func (b *proxyBench) directDSN() string {
	return fmt.Sprintf("host=%s user=bench password=%s dbname=bench sslmode=verify-full sslrootcert=%s",
		b.host, proxyPassword, filepath.Join(b.dir, "ca.pem"))
}

// listen makes the server listen with TLS, and creates the role and the database.
func (b *proxyBench) listen(ctx context.Context) error {
	config, err := pgx.ParseConfig(b.server.AdminDSN())
	if err != nil {
		return err
	}
	data := filepath.Join(config.Host, "data")
	if err := b.writeCertificate(data); err != nil {
		return err
	}
	hba := filepath.Join(data, "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	if err != nil {
		return err
	}
	// Like Azure, request the password in cleartext.
	if err := os.WriteFile(hba, append([]byte("hostssl all all 127.0.0.0/8 password\n"), rules...), 0o600); err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		"alter system set listen_addresses = '" + b.host + "'",
		"alter system set ssl = on",
		"alter system set ssl_cert_file = 'bench.crt'",
		"alter system set ssl_key_file = 'bench.key'",
		"alter system set max_connections = 1300",
		"create role bench superuser login password '" + proxyPassword + "'",
		"create database bench owner bench",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return b.server.Restart(ctx)
}

// writeCertificate writes a certificate for the server, which signs itself.
func (b *proxyBench) writeCertificate(data string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		IPAddresses: []net.IP{net.ParseIP(b.host)}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	b.roots.AppendCertsFromPEM(certificate)
	info, err := os.Stat(data)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	for name, content := range map[string][]byte{
		filepath.Join(data, "bench.crt"): certificate,
		filepath.Join(data, "bench.key"): pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return err
		}
		if err := os.Chown(name, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(b.dir, "ca.pem"), certificate, 0o644)
}

func (b *proxyBench) startBouncer(ctx context.Context, path, ca string) error {
	host := b.network + "2"
	settings := fmt.Sprintf(`[databases]
bench = host=%s port=5432 dbname=bench user=bench password=%s
[pgbouncer]
pool_mode = session
default_pool_size = 1200
max_client_conn = 1300
listen_addr = %s
listen_port = 5432
unix_socket_dir =
auth_type = any
server_tls_sslmode = verify-full
server_tls_ca_file = %s
log_connections = 0
log_disconnections = 0
`, b.host, proxyPassword, host, ca)
	ini := filepath.Join(b.dir, "pgbouncer.ini")
	if err := os.WriteFile(ini, []byte(settings), 0o644); err != nil {
		return err
	}
	args := []string{"-q", ini}
	if os.Getuid() == 0 { // PgBouncer does not run as root
		name := "postgres"
		if _, err := user.Lookup(name); err != nil {
			name = "nobody"
		}
		args = append(args, "-u", name)
	}
	b.dsns[pgBouncer] = fmt.Sprintf("host=%s user=bench dbname=bench sslmode=disable", host)
	return b.start(ctx, pgBouncer, exec.CommandContext(ctx, path, args...))
}

func (b *proxyBench) startProxy(ctx context.Context) error {
	host := b.network + "3"
	program := filepath.Join(b.dir, "entrapg")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/entrapg")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	proxy := exec.CommandContext(ctx, program, "proxy", "--trust", "--listen", host+":5432", "--log-level", "warn",
		b.dsns[direct]+" entra_credential=none")
	proxy.Env = append(os.Environ(), "GOMAXPROCS=1") // one core, like PgBouncer
	b.dsns[proxied] = fmt.Sprintf("host=%s user=bench dbname=bench sslmode=disable", host)
	return b.start(ctx, proxied, proxy)
}

// start starts a process and waits until a client can log in.
func (b *proxyBench) start(ctx context.Context, column string, cmd *exec.Cmd) error {
	log, err := os.Create(filepath.Join(b.dir, strings.ReplaceAll(column, " ", "-")+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return err
	}
	b.process[column] = cmd
	var last error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); sleep(ctx, 50*time.Millisecond) {
		var conn *pgconn.PgConn
		if conn, last = pgconn.Connect(ctx, b.dsns[column]); last == nil {
			return conn.Close(ctx)
		}
	}
	output, _ := os.ReadFile(log.Name())
	return fmt.Errorf("%s: %w\n%s", column, last, output)
}

// command returns a command for the program name of PostgreSQL.
func (b *proxyBench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PGSSLNEGOTIATION=") // the developer's value would change the measurement
	return cmd
}

func (b *proxyBench) close() {
	for _, cmd := range b.process {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	if b.server != nil {
		b.server.Close()
	}
	os.RemoveAll(b.dir)
}

// measureProxy returns the rows of the proxy's table.
func measureProxy(ctx context.Context, short bool) ([]*Row, error) {
	b, err := startProxyBench(ctx, short)
	if err != nil {
		return nil, err
	}
	defer b.close()
	one := filepath.Join(b.dir, "one.sql")
	if err := os.WriteFile(one, []byte("select 1;\n"), 0o644); err != nil {
		return nil, err
	}
	var rows []*Row
	for _, q := range []struct {
		name, unit string
		atLeast    float64 // target, as a ratio to PgBouncer; 0 is none
		atMost     float64
		measure    func(ctx context.Context, dsn string) (float64, error)
	}{
		{"select 1, one client: latency", "ms", 0, 1.1, b.pgbench("latency average = ", "--file="+one, "--client=1")},
		{"pgbench -S, 8 clients", "1/s", 1, 0, b.pgbench("tps = ", "--select-only", "--client=8")},
		{"pgbench -S, 64 clients", "1/s", 1, 0, b.pgbench("tps = ", "--select-only", "--client=64")},
		{"pgbench -S -C, 8 clients", "1/s", 0, 0, b.pgbench("tps = ", "--select-only", "--connect", "--client=8")},
		{"COPY from the server, 1 GiB", "MB/s", 1, 0, b.copyOut},
		{"COPY to the server, 1 GiB", "MB/s", 1, 0, b.copyIn},
	} {
		row := &Row{Question: proxyQuestion, Name: q.name, Unit: q.unit, Figures: map[string]Figure{}}
		values := map[string][]float64{}
		var ratios []float64
		columns := []string{direct, pgBouncer, proxied}
		for i := range pick(short, 1, 3) {
			for j := range columns {
				column := columns[(i+j)%len(columns)]
				value, err := q.measure(ctx, b.dsns[column])
				if err != nil {
					return rows, fmt.Errorf("%s, %s: %w", q.name, column, err)
				}
				values[column] = append(values[column], value)
			}
			ratios = append(ratios, values[proxied][i]/values[pgBouncer][i])
		}
		for column, v := range values {
			row.Figures[column] = Figure{Value: median(v)}
		}
		switch {
		case q.atMost > 0:
			row.atMost(q.atMost, pgBouncer, ratios)
		case q.atLeast > 0:
			row.atLeast(q.atLeast, pgBouncer, ratios)
		default:
			row.compare(pgBouncer, ratios)
		}
		rows = append(rows, row)
	}
	memory, err := b.memory(ctx)
	return append(rows, memory), err
}

const proxyQuestion = "entrapg proxy and PgBouncer"

// pgbench returns a measurement by pgbench, of the number that follows label.
func (b *proxyBench) pgbench(label string, args ...string) func(context.Context, string) (float64, error) {
	return func(ctx context.Context, dsn string) (float64, error) {
		all := append([]string{"--no-vacuum", "--protocol=prepared", pick(b.short, "--transactions=5", "--time=4")}, args...)
		out, err := b.command(ctx, "pgbench", append(all, dsn)...).CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("pgbench: %w\n%s", err, out)
		}
		_, rest, found := bytes.Cut(out, []byte(label))
		fields := strings.Fields(string(rest))
		if !found || len(fields) == 0 {
			return 0, fmt.Errorf("pgbench printed no %q:\n%s", label, out)
		}
		return strconv.ParseFloat(fields[0], 64)
	}
}

func (b *proxyBench) copySize() int { return pick(b.short, 1<<24, 1<<30) }

// copyOut returns the throughput of a COPY from the server, in MB/s.
func (b *proxyBench) copyOut(ctx context.Context, dsn string) (float64, error) {
	const line = 1024
	return b.copy(ctx, dsn, nil, fmt.Sprintf(
		"\\copy (select repeat('x', %d) from generate_series(1, %d)) to '/dev/null'", line-1, b.copySize()/line))
}

// copyIn returns the throughput of a COPY to the server, in MB/s. A trigger drops
// the rows, so that the server's disk does not matter.
func (b *proxyBench) copyIn(ctx context.Context, dsn string) (float64, error) {
	const line = 1024
	content := bytes.Repeat(append(bytes.Repeat([]byte{'x'}, line-1), '\n'), b.copySize()/line)
	return b.copy(ctx, dsn, content, "create temporary table sink (x text)",
		"create function pg_temp.drop() returns trigger language plpgsql as 'begin return null; end'",
		"create trigger sink before insert on sink for each row execute function pg_temp.drop()",
		"\\copy sink from pstdin")
}

func (b *proxyBench) copy(ctx context.Context, dsn string, stdin []byte, commands ...string) (float64, error) {
	args := []string{"--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"}
	for _, c := range commands {
		args = append(args, "--command="+c)
	}
	cmd := b.command(ctx, "psql", append(args, dsn)...)
	cmd.Stdin = bytes.NewReader(stdin)
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("psql: %w\n%s", err, out)
	}
	return float64(b.copySize()) / 1e6 / time.Since(begin).Seconds(), nil
}

// memory measures how much resident memory an idle session adds to a process. The column
// direct contains the memory of one of Go's TLS connections, which the proxy has for each
// session.
func (b *proxyBench) memory(ctx context.Context) (*Row, error) {
	const limitKiB = 40
	size := pick(b.short, 20, 1000)
	row := &Row{Question: proxyQuestion, Name: "memory of an idle session", Unit: "KiB", Figures: map[string]Figure{}}
	for _, column := range []string{pgBouncer, proxied} {
		before, err := resident(b.process[column].Process.Pid)
		if err != nil {
			return nil, err
		}
		conns, err := openSessions(ctx, b.dsns[column], size)
		if err == nil {
			var after float64
			after, err = resident(b.process[column].Process.Pid)
			row.Figures[column] = Figure{Value: (after - before) / float64(size)}
		}
		for _, c := range conns {
			c.Close(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	alone, err := b.tlsMemory(ctx, min(size, 200))
	if err != nil {
		return nil, err
	}
	row.Figures[direct] = Figure{Value: alone}
	beyond := row.Figures[proxied].Value - alone
	row.Target, row.Of = fmt.Sprintf("≤ TLS + %d", limitKiB), "a TLS connection"
	row.judge(beyond <= limitKiB)
	return row, nil
}

func openSessions(ctx context.Context, dsn string, size int) ([]*pgconn.PgConn, error) {
	var conns []*pgconn.PgConn
	for range size {
		conn, err := pgconn.Connect(ctx, dsn)
		if err != nil {
			return conns, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

// resident returns the resident memory of a process in KiB.
func resident(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
		}
	}
	return 0, errors.New("no VmRSS in /proc")
}

// tlsMemory returns the memory of a TLS connection to the server in KiB.
func (b *proxyBench) tlsMemory(ctx context.Context, size int) (float64, error) {
	conns := make([]*tls.Conn, 0, size)
	defer func() {
		for _, c := range conns {
			c.NetConn().Close()
		}
	}()
	before := heapNow()
	for range size {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(b.host, "5432"))
		if err != nil {
			return 0, err
		}
		secured := tls.Client(conn, &tls.Config{RootCAs: b.roots, ServerName: b.host})
		conns = append(conns, secured)
		if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest
			return 0, err
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			return 0, err
		}
		if err := secured.HandshakeContext(ctx); err != nil {
			return 0, err
		}
	}
	return (heapNow() - before) / float64(size) / 1024, nil
}
