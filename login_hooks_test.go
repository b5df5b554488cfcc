package entrapg_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

// A replica implements the part of PostgreSQL's protocol that target_session_attrs needs.
type replica struct {
	standby  bool
	messages []pgproto3.BackendMessage // if set, the only ones sent after the startup message

	mu        sync.Mutex
	passwords []string
}

func (r *replica) serve(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	if r.messages != nil {
		for _, m := range r.messages {
			backend.Send(m)
		}
		backend.Flush()
		backend.Receive()
		return
	}
	backend.Send(&pgproto3.AuthenticationCleartextPassword{})
	if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	message, err := backend.Receive()
	if err != nil {
		return
	}
	r.mu.Lock()
	r.passwords = append(r.passwords, message.(*pgproto3.PasswordMessage).Password)
	r.mu.Unlock()
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	value := []byte("off") // transaction_read_only
	if r.standby {
		value = []byte("on")
	}
	for {
		if backend.Flush() != nil {
			return
		}
		message, err := backend.Receive()
		if err != nil {
			return
		}
		if query, ok := message.(*pgproto3.Query); ok {
			if strings.Contains(query.String, "pg_is_in_recovery") {
				value = map[bool][]byte{true: []byte("t"), false: []byte("f")}[r.standby]
			}
			backend.Send(
				&pgproto3.RowDescription{
					Fields: []pgproto3.FieldDescription{{Name: []byte("x"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}},
				},
			)
			backend.Send(&pgproto3.DataRow{Values: [][]byte{value}})
			backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SHOW")})
			backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		}
	}
}

func (r *replica) sent() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.passwords, " ")
}

// to dials the first replica for the first host, and so on.
func to(replicas ...*replica) entrapg.Option {
	return entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.DialFunc = func(_ context.Context, _, address string) (net.Conn, error) {
			client, server := net.Pipe()
			go replicas[int(address[len("127.0.0.")]-'1')].serve(server)
			return client, nil
		}
	})
}

func TestLogin_NextHostIsUsedIfFirstFailsTargetSessionAttrs(t *testing.T) {
	credential := &numbered{life: time.Hour}
	for _, test := range []struct {
		attributes string
		first      *replica
		password   string // of entra_credential=none
	}{
		{attributes: "read-write", first: &replica{standby: true}},
		{attributes: "primary", first: &replica{standby: true}},
		{attributes: "standby", first: &replica{}},
		{attributes: "prefer-standby", first: &replica{}},
		{attributes: "read-only", first: &replica{}},
		{attributes: "read-write", first: &replica{standby: true}, password: "correct horse"},
		{attributes: "any", first: &replica{messages: []pgproto3.BackendMessage{
			&pgproto3.ReadyForQuery{TxStatus: 'I'}, // before AuthenticationOk
		}}},
		{attributes: "any", first: &replica{messages: []pgproto3.BackendMessage{
			&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P03", Message: "starting up"},
		}}},
	} {
		dsn := "host=127.0.0.1,127.0.0.2 user=app sslmode=disable target_session_attrs=" + test.attributes
		opts, want := []entrapg.Option{entrapg.WithCredential(credential)}, "token-1"
		if test.password != "" {
			dsn += " entra_credential=none password='" + test.password + "'"
			opts, want = nil, test.password
		}
		second := &replica{standby: !test.first.standby}
		both := to(test.first, second)
		c := entrapg.NewConnector(dsn, append(opts, both)...)
		defer c.Close()
		if err := connect(t, c); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
		conn, err := newPool(t, poolConfig(t, dsn, append(opts, both)...)).Acquire(t.Context())
		if err != nil {
			t.Errorf("%s: pgxpool: %v", dsn, err)
		} else {
			conn.Release()
		}
		if got := second.sent(); got != want+" "+want {
			t.Errorf("%s: the second host got %q, want %q twice", dsn, got, want)
		}
	}
}

// plaintextImpostor is a plaintext server whose address is outside this machine.
func plaintextImpostor(seen *pipeServer) entrapg.Option {
	return entrapg.WithConnConfig(func(c *pgx.ConnConfig) {
		c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"192.0.2.1"}, nil }
		c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := seen.dial(ctx, network, address)
			return remoteConn{conn}, err
		}
	})
}

type remoteConn struct{ net.Conn }

func (remoteConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5432}
}

func TestLogin_HookThatReplacesHooksIsConfigError(t *testing.T) {
	own := func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) { return conn, nil }
	const azure, local = "host=" + azureName + " user=app", "host=localhost user=app sslmode=disable"
	const password = " entra_credential=none password=hunter2"
	for name, test := range map[string]struct {
		dsn, setting string
		hook         func(*pgx.ConnConfig)
	}{
		"own AfterNetConnect": {local, "AfterNetConnect", func(c *pgx.ConnConfig) { c.AfterNetConnect = own }},
		"no AfterNetConnect":  {local, "AfterNetConnect", func(c *pgx.ConnConfig) { c.AfterNetConnect = nil }},
		"neither it nor TLS":  {azure, "AfterNetConnect", func(c *pgx.ConnConfig) { c.TLSConfig, c.AfterNetConnect = nil, own }},
		"nor with a password": {azure + password, "AfterNetConnect", func(c *pgx.ConnConfig) { c.TLSConfig, c.AfterNetConnect = nil, nil }},
		"password, no TLS":    {azure + password, "sslmode", func(c *pgx.ConnConfig) { c.TLSConfig = nil }},
		"password, Azure": {
			"host=db.example.com user=app sslmode=disable" + password, "sslmode", func(c *pgx.ConnConfig) { c.Host = azureName },
		},
		"a password":    {"host=127.0.0.1 user=app sslmode=disable", "Password", func(c *pgx.ConnConfig) { c.Password = "hunter2" }},
		"a longer user": {"host=127.0.0.1 user=app sslmode=disable", "", func(c *pgx.ConnConfig) { c.User = strings.Repeat("x", 64) }},
		"no user":       {"host=127.0.0.1 user=app sslmode=disable", "", func(c *pgx.ConnConfig) { c.User = "" }},
		"InsecureSkipVerify": {azure + " sslmode=require", "TLSConfig", func(c *pgx.ConnConfig) {
			c.TLSConfig = c.TLSConfig.Clone()
			c.TLSConfig.InsecureSkipVerify = true
		}},
		"InsecureSkipVerify in place": {
			azure + " sslmode=require", "TLSConfig", func(c *pgx.ConnConfig) { c.TLSConfig.InsecureSkipVerify = true },
		},
		"InsecureSkipVerify in place, verify-ca": {azure + " sslmode=verify-ca", "TLSConfig", func(c *pgx.ConnConfig) {
			c.TLSConfig.InsecureSkipVerify, c.TLSConfig.VerifyConnection = true, nil
		}},
		"a connection that is TLS": {local, "host", func(c *pgx.ConnConfig) {
			dial := c.DialFunc
			c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), err
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &pipeServer{}
			network := plaintextImpostor(s)
			if test.setting == "" || test.setting == "Password" {
				network = s.options()
			}
			if strings.Contains(name, "InsecureSkipVerify") {
				network = newImpostor(t, attack{tls: "S", names: []string{azureName}, reply: cleartextRequest}).option()
			}
			opts := []entrapg.Option{network}
			if !strings.Contains(test.dsn, "none") {
				opts = append(opts, entrapg.WithCredential(&numbered{life: time.Hour}))
			}
			check := func(way string, err error) {
				t.Helper()
				var invalid *entrapg.ConfigError
				var username *entrapg.UsernameError
				if test.setting == "" && !errors.As(err, &username) ||
					test.setting != "" && (!errors.As(err, &invalid) || invalid.Setting != test.setting) {
					t.Errorf("%s: got %v, want a ConfigError for %q", way, err, test.setting)
				}
				if got := s.passwords(); len(got) > 0 {
					t.Errorf("%s: the server got %q", way, got)
				}
			}
			hook := entrapg.WithStdlib(stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
				test.hook(c)
				return nil
			}))
			c := entrapg.NewConnector(test.dsn, append(opts, hook)...)
			defer c.Close()
			check("Connector", connect(t, c))

			config := poolConfig(t, test.dsn, opts...)
			before := config.BeforeConnect
			config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
				err := before(ctx, c)
				test.hook(c)
				return err
			}
			_, err := newPool(t, config).Acquire(t.Context())
			check("pgxpool", err)
		})
	}
}

func TestLogin_UserSetByHookIsInError(t *testing.T) {
	s := &pipeServer{reject: rejectEveryLogin}
	c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(&numbered{life: time.Hour}),
		entrapg.WithLogger(nil),
		entrapg.WithStdlib(stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
			c.User = "other"
			return nil
		})))
	defer c.Close()
	var login *entrapg.LoginError
	if err := connect(t, c); !errors.As(err, &login) || login.User != "other" {
		t.Errorf("got %v, want a LoginError for user other", err)
	}
}
