package entrapg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

// forever is a token that the tests outlive.
var forever = azcore.AccessToken{Token: "forever", ExpiresOn: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}

// tcpServer is a pipeServer on a port, for DSNs that have to do without options.
func tcpServer(t *testing.T) (s *pipeServer, dsn string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s = &pipeServer{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	host, port, _ := net.SplitHostPort(listener.Addr().String())
	return s, fmt.Sprintf("host=%s port=%s user=app sslmode=disable", host, port)
}

// openByName opens a pool as tools do that take a driver's name and a DSN.
func openByName(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("entrapg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// logIn opens a connection of a pool, and closes it again.
func logIn(t *testing.T, db *sql.DB) {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	conn.Close()
}

func TestSQLOpenReportsABadDSNAtOnce(t *testing.T) {
	var config *entrapg.ConfigError
	if db, err := sql.Open("entrapg", "host=db.example.com sslmode=prefer"); !errors.As(err, &config) || config.Setting != "sslmode" {
		t.Errorf("got %v and %v, want a ConfigError for sslmode", db, err)
	}
}

func TestAThousandDSNsShareOneCredentialAndOneRequest(t *testing.T) {
	s, dsn := tcpServer(t)
	calls := azureCLI(t, azAnswer(forever))
	var all sync.WaitGroup
	limit := make(chan struct{}, 50)
	for i := range 1000 {
		db := openByName(t, fmt.Sprintf("%s dbname=tenant%d application_name=a%d entra_credential=azurecli", dsn, i, i))
		all.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			logIn(t, db)
		})
	}
	all.Wait()
	if n := calls(); n != 1 {
		t.Errorf("az was called %d times, want once", n)
	}
	if n := len(s.passwords()); n != 1000 {
		t.Errorf("%d logins, want 1000", n)
	}
}

func TestDSNsThatChooseDifferentlyShareNothing(t *testing.T) {
	_, dsn := tcpServer(t)
	calls := azureCLI(t, azAnswer(forever))
	for _, more := range []string{"", " entra_tenant_id=contoso.example", " entra_scope=api://other/.default"} {
		for range 2 {
			logIn(t, openByName(t, dsn+" entra_credential=AzureCLICredential"+more))
		}
	}
	if n := calls(); n != 3 {
		t.Errorf("az was called %d times, want once for each of three choices", n)
	}
}

func TestTokenIsForgottenWhenTheLastPoolThatSharesItIsClosed(t *testing.T) {
	_, dsn := tcpServer(t)
	calls := azureCLI(t, azAnswer(forever))
	dsn += " entra_credential=azurecli"
	first, second := openByName(t, dsn), openByName(t, dsn)
	for _, step := range []struct {
		db    *sql.DB
		calls int
	}{{first, 1}, {second, 1}, {openByName(t, dsn), 1}} {
		logIn(t, step.db)
		step.db.Close()
		if n := calls(); n != step.calls {
			t.Errorf("az was called %d times, want %d", n, step.calls)
		}
	}
	logIn(t, openByName(t, dsn))
	if n := calls(); n != 2 {
		t.Errorf("after all were closed: az was called %d times in all, want 2", n)
	}
}

func TestConnectorsThatAreGivenOneCredentialShareItsTokens(t *testing.T) {
	credential := &numbered{life: time.Hour, delay: time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		var all sync.WaitGroup
		for i := range 1000 {
			dsn := bubbleDSN
			if i%2 == 1 {
				dsn += " entra_scope=api://other/.default"
			}
			c := entrapg.NewConnector(dsn, s.options(), entrapg.WithCredential(credential))
			defer c.Close()
			all.Go(func() {
				if err := connect(t, c); err != nil {
					t.Error(err)
				}
				if n := c.Stats().TokenRequests; n != 1 {
					t.Errorf("Stats counts %d requests for the scope, want 1", n)
				}
			})
		}
		all.Wait()
		if n := credential.count(); n != 2 {
			t.Errorf("%d requests for two scopes, want 2", n)
		}
	})
}

func TestPoolConfigurationsShareACredentialsTokensToo(t *testing.T) {
	credential := &numbered{life: time.Hour}
	s := &pipeServer{}
	for range 3 {
		config := poolConfig(t, bubbleDSN, s.options(), entrapg.WithCredential(credential))
		conn, err := newPool(t, config).Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Release()
	}
	if n := credential.count(); n != 1 {
		t.Errorf("%d requests by three pools, want 1", n)
	}
}

func TestCredentialThatCannotBeComparedIsNotShared(t *testing.T) {
	s := &pipeServer{}
	calls := 0
	credential := credentialFunc(func(context.Context, string) (azcore.AccessToken, error) {
		calls++
		return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
	})
	for range 2 {
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential))
		defer c.Close()
		mustConnect(t, c)
	}
	if calls != 2 {
		t.Errorf("%d requests, want one for each connector", calls)
	}
}

func TestClosingOneOfTheConnectorsThatShareATokenLeavesTheOthersAlone(t *testing.T) {
	credential := &numbered{life: time.Hour, delay: 10 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := &pipeServer{}
		one := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential))
		other := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential))
		defer other.Close()
		var all sync.WaitGroup
		start := time.Now()
		all.Go(func() { // whose request it is
			if err := connect(t, one); err == nil || !strings.Contains(err.Error(), "closed") || time.Since(start) != time.Second {
				t.Errorf("after %v: %v, want the one that was closed to leave then", time.Since(start), err)
			}
		})
		synctest.Wait()
		all.Go(func() { mustConnect(t, other) })
		time.Sleep(time.Second)
		one.Close()
		all.Wait()
		if err := connect(t, one); err == nil {
			t.Error("a closed connector connects, by the token of another")
		}
		if n := credential.count(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestConnectorsWithAndWithoutAUserShareAToken(t *testing.T) {
	s := start(t, entrapgtest.Config{})
	p := app(t, s)
	createRole(t, s, "other name", p)
	for _, dsn := range []string{s.DSN() + "&user=other%20name", s.DSN(), s.DSN()} {
		db, _ := open(t, dsn, entrapg.WithCredential(p))
		want := p.Name
		if strings.Contains(dsn, "user=") {
			want = "other name"
		}
		if user := sessionUser(t, db); user != want {
			t.Errorf("logged in as %q, want %q", user, want)
		}
	}
	if n, m := s.Tenant.RequestsFor("https://ossrdbms-aad.database.windows.net"), s.Tenant.RequestsFor("https://management.azure.com"); n != 1 || m != 1 {
		t.Errorf("%d requests for the database and %d look-ups of the name, want 1 and 1", n, m)
	}
}

func TestUserThatCannotBeFoundOutKeepsNobodyElseFromTheToken(t *testing.T) {
	credential := &countingOpaque{}
	s := &pipeServer{}
	nameless := entrapg.NewConnector("host=127.0.0.1 sslmode=disable", s.options(), entrapg.WithCredential(credential))
	named := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential))
	defer nameless.Close()
	defer named.Close()
	for range 3 {
		var username *entrapg.UsernameError
		if err := connect(t, nameless); !errors.As(err, &username) {
			t.Errorf("got %v, want a UsernameError", err)
		}
		mustConnect(t, named)
	}
	if credential.calls != 1 {
		t.Errorf("%d requests, want 1", credential.calls)
	}
}

// countingOpaque is a credential whose tokens say nothing about anybody.
type countingOpaque struct{ calls int }

func (c *countingOpaque) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.calls++
	return azcore.AccessToken{Token: "opaque", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestHopelessRoleOfManyConnectorsIsNotAskedATokenForByEach(t *testing.T) {
	credential := &numbered{life: time.Hour}
	s := &pipeServer{refuse: refuseEverything}
	keeper := entrapg.NewConnector("host=elsewhere.example.com", entrapg.WithCredential(credential))
	defer keeper.Close()
	for range 100 { // short-lived ones, as of a program that opens a pool for each request
		c := entrapg.NewConnector(bubbleDSN, s.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		if err := connect(t, c); err == nil {
			t.Fatal("the hopeless role was let in")
		}
		c.Close()
	}
	if n := credential.count(); n > 10 {
		t.Errorf("%d token requests for 100 connectors, want 10 at the most", n)
	}
}

func TestTokenThatOneServerRefusesAndAnotherAcceptsMeanwhileStays(t *testing.T) {
	credential := &numbered{life: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		bad, good := &pipeServer{refuse: refuseEverything}, &pipeServer{}
		refused := make(chan struct{})
		good.refuse = func(string) *pgproto3.ErrorResponse {
			<-refused
			return nil
		}
		one := entrapg.NewConnector(bubbleDSN+" port=5433", bad.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
		other := entrapg.NewConnector(bubbleDSN, good.options(), entrapg.WithCredential(credential))
		defer one.Close()
		defer other.Close()
		var all sync.WaitGroup
		all.Go(func() { mustConnect(t, other) })
		synctest.Wait()
		go func() { // once the refusal of the first token has been taken down
			synctest.Wait()
			close(refused)
		}()
		if err := connect(t, one); err == nil {
			t.Fatal("the bad server let somebody in")
		}
		all.Wait()
		mustConnect(t, other)
		if n := credential.count(); n > 2 {
			t.Errorf("%d requests, want no more than the refused login's own", n)
		}
	})
}

func TestOneServersRefusalsDoNotCostAnotherServersTokens(t *testing.T) {
	credential := &numbered{life: time.Hour}
	bad, good := &pipeServer{}, &pipeServer{}
	bad.setRefuse(refuseEverything)
	hopeless := entrapg.NewConnector(bubbleDSN+" port=5433", bad.options(), entrapg.WithCredential(credential), entrapg.WithLogger(nil))
	fine := entrapg.NewConnector(bubbleDSN, good.options(), entrapg.WithCredential(credential))
	defer hopeless.Close()
	defer fine.Close()
	for range 100 {
		if err := connect(t, hopeless); err == nil {
			t.Fatal("the hopeless one was let in")
		}
		mustConnect(t, fine)
	}
	if n := credential.count(); n > 10 {
		t.Errorf("%d token requests for 200 connections, want 10 at the most", n)
	}
}
