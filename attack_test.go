package entrapg_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
)

const outsideName = "db.example.com"

var (
	ownNames     = []string{azureName, outsideName} // and loopback
	letIn        = encode(&pgproto3.AuthenticationOk{}, &pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	askCleartext = encode(&pgproto3.AuthenticationCleartextPassword{})
	tellNoEntry  = encode(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28000", Message: "no pg_hba.conf entry for host, SSL encryption"})
)

type namedAttack struct {
	name string
	attack
	trusted bool // the user trusts the authority of its certificate
}

// attacks are tried by hosts and settings. What comes of them is in the tables of
// the tests: rows are host and attack, columns are settings.
var attacks = []namedAttack{
	{"no TLS", attack{tls: "N", say: askCleartext}, false},
	{"error for TLS", attack{tls: string(tellNoEntry), say: askCleartext}, false},
	{"garbage for TLS", attack{tls: "HTTP/1.1 400 Bad Request", say: askCleartext}, false},
	{"bytes before TLS", attack{tls: "S" + string(askCleartext), names: ownNames, say: askCleartext}, false}, // CVE-2021-23222
	{"self-signed", attack{tls: "S", names: ownNames, say: askCleartext}, false},
	{"another's name", attack{tls: "S", names: []string{"elsewhere.example"}, say: askCleartext}, true},
	{"error inside TLS", attack{tls: "S", names: ownNames, say: tellNoEntry}, false},
	{"MD5", attack{tls: "S", names: ownNames, say: encode(&pgproto3.AuthenticationMD5Password{Salt: [4]byte{1, 2, 3, 4}})}, false},
	{"SCRAM", attack{tls: "S", names: ownNames, say: encode(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})}, false},
	{"OAUTHBEARER", attack{tls: "S", names: ownNames, say: encode(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER"}})}, false},
	{"GSS", attack{tls: "S", names: ownNames, say: encode(&pgproto3.AuthenticationGSS{})}, false},
	{"trust", attack{tls: "S", names: ownNames, say: letIn}, false},
}

// table tries every attack on every host with every sslmode, and writes down what
// the attacker saw.
func table(t *testing.T, more, secret string, opts ...entrapg.Option) string {
	t.Helper()
	sslmodes := []string{"", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	var out strings.Builder
	for _, a := range attacks {
		for _, host := range []string{azureName, outsideName, "127.0.0.1"} {
			kind := map[string]string{azureName: "Azure", outsideName: "outside", "127.0.0.1": "loopback"}[host]
			fmt.Fprintf(&out, "%-16s %-8s", a.name, kind)
			for _, sslmode := range sslmodes {
				dsn := "host=" + host + " user=app " + more
				i := newImpostor(t, a.attack) // a new one each: pgx sends requests to cancel after a login that broke off
				if sslmode != "" {
					dsn += " sslmode=" + sslmode
				}
				if a.trusted {
					dsn += " sslrootcert=" + quote(i.caFile)
				}
				c := entrapg.NewConnector(dsn, append(opts, i.option())...)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				conn, err := c.Connect(ctx)
				if ctx.Err() != nil {
					t.Errorf("%s, %s: it takes its time: %v", a.name, dsn, err)
				}
				cancel()
				if err == nil {
					conn.Close()
				} else if strings.Contains(err.Error(), secret) {
					t.Errorf("%s, %s: the error shows the secret", a.name, dsn)
				}
				saw := i.saw(secret)
				if err == nil {
					saw += "!"
				}
				fmt.Fprintf(&out, " %-7s", saw)
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}

// compare tells where two tables differ.
func compare(t *testing.T, got, want string) {
	t.Helper()
	wanted := strings.Split(strings.Trim(want, "\n"), "\n")[1:]
	rows := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(rows) != len(wanted) {
		t.Fatalf("got\n%s", got)
	}
	for n, row := range rows {
		if row = strings.TrimRight(row, " "); row != wanted[n] {
			t.Errorf("got  %s\nwant %s", row, wanted[n])
		}
	}
}

func TestAttackerSeesTheTokenOnlyWhereTheUserAskedForNoVerification(t *testing.T) {
	token := "canary." + rand.Text() + ".canary"
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	got := table(t, "", token, entrapg.WithCredential(credential))
	compare(t, got, `
                           (none) disable allow  prefer require verify-ca verify-full
no TLS           Azure    hello   -       -       -       hello   hello   hello
no TLS           outside  hello   -       -       -       hello   hello   hello
no TLS           loopback hello   SECRET  -       -       hello   hello   hello
error for TLS    Azure    hello   -       -       -       hello   hello   hello
error for TLS    outside  hello   -       -       -       hello   hello   hello
error for TLS    loopback hello   SECRET  -       -       hello   hello   hello
garbage for TLS  Azure    hello   -       -       -       hello   hello   hello
garbage for TLS  outside  hello   -       -       -       hello   hello   hello
garbage for TLS  loopback hello   SECRET  -       -       hello   hello   hello
bytes before TLS Azure    hello   -       -       -       hello   hello   hello
bytes before TLS outside  hello   -       -       -       hello   hello   hello
bytes before TLS loopback hello   SECRET  -       -       hello   hello   hello
self-signed      Azure    hello   -       -       -       hello   hello   hello
self-signed      outside  hello   -       -       -       SECRET  hello   hello
self-signed      loopback hello   SECRET  -       -       SECRET  hello   hello
another's name   Azure    hello   -       -       -       hello   hello   hello
another's name   outside  hello   -       -       -       SECRET  SECRET  hello
another's name   loopback hello   SECRET  -       -       SECRET  SECRET  hello
error inside TLS Azure    hello   -       -       -       hello   hello   hello
error inside TLS outside  hello   -       -       -       user    hello   hello
error inside TLS loopback hello   user    -       -       user    hello   hello
MD5              Azure    hello   -       -       -       hello   hello   hello
MD5              outside  hello   -       -       -       user    hello   hello
MD5              loopback hello   user    -       -       user    hello   hello
SCRAM            Azure    hello   -       -       -       hello   hello   hello
SCRAM            outside  hello   -       -       -       user    hello   hello
SCRAM            loopback hello   user    -       -       user    hello   hello
OAUTHBEARER      Azure    hello   -       -       -       hello   hello   hello
OAUTHBEARER      outside  hello   -       -       -       SECRET  hello   hello
OAUTHBEARER      loopback hello   SECRET  -       -       SECRET  hello   hello
GSS              Azure    hello   -       -       -       hello   hello   hello
GSS              outside  hello   -       -       -       user    hello   hello
GSS              loopback hello   user    -       -       user    hello   hello
trust            Azure    hello   -       -       -       hello   hello   hello
trust            outside  hello   -       -       -       user    hello   hello
trust            loopback hello   user    -       -       user    hello   hello
`)
}

func TestAttackerSeesThePasswordOnlyWhereTheUserAskedForNoVerification(t *testing.T) {
	const password = "correct-horse-battery"
	got := table(t, "entra_credential=none password="+password, password)
	compare(t, got, `
                           (none) disable allow  prefer require verify-ca verify-full
no TLS           Azure    hello   -       -       -       hello   hello   hello
no TLS           outside  hello   SECRET  SECRET  SECRET  hello   hello   hello
no TLS           loopback hello   SECRET  SECRET  SECRET  hello   hello   hello
error for TLS    Azure    hello   -       -       -       hello   hello   hello
error for TLS    outside  hello   SECRET  SECRET  SECRET  hello   hello   hello
error for TLS    loopback hello   SECRET  SECRET  SECRET  hello   hello   hello
garbage for TLS  Azure    hello   -       -       -       hello   hello   hello
garbage for TLS  outside  hello   SECRET  SECRET  SECRET  hello   hello   hello
garbage for TLS  loopback hello   SECRET  SECRET  SECRET  hello   hello   hello
bytes before TLS Azure    hello   -       -       -       hello   hello   hello
bytes before TLS outside  hello   SECRET  SECRET  SECRET  hello   hello   hello
bytes before TLS loopback hello   SECRET  SECRET  SECRET  hello   hello   hello
self-signed      Azure    hello   -       -       -       hello   hello   hello
self-signed      outside  hello   SECRET  SECRET  SECRET  SECRET  hello   hello
self-signed      loopback hello   SECRET  SECRET  SECRET  SECRET  hello   hello
another's name   Azure    hello   -       -       -       hello   hello   hello
another's name   outside  hello   SECRET  SECRET  SECRET  SECRET  SECRET  hello
another's name   loopback hello   SECRET  SECRET  SECRET  SECRET  SECRET  hello
error inside TLS Azure    hello   -       -       -       hello   hello   hello
error inside TLS outside  hello   user    user    user    user    hello   hello
error inside TLS loopback hello   user    user    user    user    hello   hello
MD5              Azure    hello   -       -       -       hello   hello   hello
MD5              outside  hello   hash    hash    hash    hash    hello   hello
MD5              loopback hello   hash    hash    hash    hash    hello   hello
SCRAM            Azure    hello   -       -       -       hello   hello   hello
SCRAM            outside  hello   user    user    user    user    hello   hello
SCRAM            loopback hello   user    user    user    user    hello   hello
OAUTHBEARER      Azure    hello   -       -       -       hello   hello   hello
OAUTHBEARER      outside  hello   user    user    user    user    hello   hello
OAUTHBEARER      loopback hello   user    user    user    user    hello   hello
GSS              Azure    hello   -       -       -       hello   hello   hello
GSS              outside  hello   user    user    user    user    hello   hello
GSS              loopback hello   user    user    user    user    hello   hello
trust            Azure    hello   -       -       -       hello   hello   hello
trust            outside  hello   user!   user!   user!   user!   hello   hello
trust            loopback hello   user!   user!   user!   user!   hello   hello
`)
}

func TestServerThatTellsNoEndOrNonsenseIsLeft(t *testing.T) {
	const large = 1 << 30
	huge := func(kind byte, n uint32) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind}, n), make([]byte, 64)...)
	}
	for name, attack := range map[string]attack{
		"notices":                 {flood: func(int) []byte { return encode(&pgproto3.NoticeResponse{Message: strings.Repeat("x", 1000)}) }},
		"parameters":              {flood: func(n int) []byte { return encode(&pgproto3.ParameterStatus{Name: fmt.Sprint(n), Value: "on"}) }},
		"keys":                    {flood: func(int) []byte { return encode(&pgproto3.BackendKeyData{SecretKey: make([]byte, 200)}) }},
		"SASL":                    {flood: func(int) []byte { return encode(&pgproto3.AuthenticationSASLContinue{Data: []byte("r=")}) }},
		"requests for a password": {flood: func(int) []byte { return askCleartext }},
		"older protocols":         {flood: func(int) []byte { return encode(&pgproto3.NegotiateProtocolVersion{}) }},
		"a huge notice":           {say: huge('N', large-10)},
		"a huge error":            {say: huge('E', large-10)},
		"a huge challenge":        {say: huge('R', large-10)},
		"a long notice":           {say: huge('N', 2<<20)},
		"a negative length":       {say: huge('R', 1<<31)},
		"a length of nothing":     {say: huge('R', 3)},
		"many protocol options":   {say: append([]byte{'v', 0, 0, 0, 12, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}, 0)},
		"an unknown message":      {say: huge('?', 8)},
		"an unknown challenge":    {say: huge('R', 8)[:9:9]},
		"half an error":           {say: []byte("E\x00\x00\x00\x08SFAT")},
		"rows":                    {say: encode(&pgproto3.DataRow{Values: [][]byte{nil}})},
		"readiness at once":       {say: encode(&pgproto3.ReadyForQuery{TxStatus: 'I'})},
		"nothing":                 {},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImpostor(t, attack)
			long := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) { // as a person's is
				return azcore.AccessToken{Token: strings.Repeat("x", 2000), ExpiresOn: time.Now().Add(time.Hour)}, nil
			})
			c := entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(long), i.option())
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if name == "nothing" {
				ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.Connect(ctx)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("the impostor was taken for the server")
			}
			if name == "nothing" && !errors.Is(err, context.DeadlineExceeded) || name != "nothing" && ctx.Err() != nil {
				t.Errorf("got %v", err)
			}
			if made := after.TotalAlloc - before.TotalAlloc; made > 64<<20 { // by both sides; parameters are many small ones
				t.Errorf("%d bytes were allocated", made)
			}
		})
	}
}

func TestServerThatRefusesEverybodyIsNotStormed(t *testing.T) {
	i := newImpostor(t, attack{say: tellNoEntry})
	c := entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(&numbered{life: time.Hour}), entrapg.WithLogger(nil), i.option())
	defer c.Close()
	const connects = 50
	for range connects {
		var login *entrapg.LoginError
		if err := connect(t, c); !errors.As(err, &login) {
			t.Fatalf("got %v, want a LoginError", err)
		}
	}
	if s := c.Stats(); s.LoginsRefused > connects+4 || s.TokenRequests > 8 {
		t.Errorf("%d connects: %d logins, %d tokens", connects, s.LoginsRefused, s.TokenRequests)
	}
}

func TestServerThatWantsSomethingElseThanATokenIsExplained(t *testing.T) {
	for name, hint := range map[string]string{"MD5": "mapped", "SCRAM": "mapped", "trust": "entra_credential=none"} {
		n := slices.IndexFunc(attacks, func(a namedAttack) bool { return a.name == name })
		i := newImpostor(t, attacks[n].attack)
		c := entrapg.NewConnector(bubbleDSN, entrapg.WithCredential(&numbered{life: time.Hour}), i.option())
		defer c.Close()
		var login *entrapg.LoginError
		if err := connect(t, c); !errors.As(err, &login) || !strings.Contains(login.Hint, hint) {
			t.Errorf("%s: got %v, want a LoginError with a hint at %s", name, err, hint)
		}
		if s := c.Stats(); s.LoginsRefused > 0 || s.TokenExpires.IsZero() {
			t.Errorf("%s: a good token counts as refused: %+v", name, s)
		}
	}
	// Who wants that kind of server says so.
	i := newImpostor(t, attack{say: letIn})
	mustConnect(t, entrapg.NewConnector(bubbleDSN+" require_auth=none,password", entrapg.WithCredential(&numbered{life: time.Hour}), i.option()))
}

func TestLimitOfALoginIsNotASessions(t *testing.T) {
	db, _ := open(t, server().DSN(), entrapg.WithCredential(app(t, server())))
	var long string
	if err := db.QueryRowContext(t.Context(), "select repeat('x', 3000000)").Scan(&long); err != nil || len(long) != 3_000_000 {
		t.Errorf("%d bytes, error %v", len(long), err)
	}
}
