package entrapg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/entrapg/entrapg"
)

// On Azure the connector needs only a DSN. This example runs against a test server, so it also sets
// the credential.
func ExampleNewConnector() {
	dsn, credential := exampleServer("shop-api")

	db := sql.OpenDB(entrapg.NewConnector(dsn, entrapg.WithCredential(credential)))
	defer db.Close()

	var user string
	if err := db.QueryRowContext(context.Background(), "select session_user").Scan(&user); err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in as", user)
	// Output: logged in as shop-api
}

// Tools that take a driver name and a DSN use entrapg by its name. The DSN selects the credential;
// here none, for a server on the developer's machine.
func Example_driverName() {
	db, err := sql.Open("entrapg", developerDSN())
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	var user string
	if err := db.QueryRowContext(context.Background(), "select session_user").Scan(&user); err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in as", user)
	// Output: logged in as postgres
}

// Connectors that are given the same credential share its tokens.
func ExampleWithCredential() {
	dsn, credential := exampleServer("shop-tenants")

	for _, name := range []string{"acme", "globex"} {
		connector := entrapg.NewConnector(dsn+"&application_name="+name, entrapg.WithCredential(credential))
		db := sql.OpenDB(connector)
		defer db.Close()
		if err := db.PingContext(context.Background()); err != nil {
			log.Fatal(err)
		}
		// One for the database, and one to look up the name of the identity.
		fmt.Println(name, "after", connector.Stats().TokenRequests, "token requests")
	}
	// Output:
	// acme after 2 token requests
	// globex after 2 token requests
}

// WithScope sets the scope for a cloud that entrapg cannot derive from the host.
func ExampleWithScope() {
	_, credential := exampleServer("shop-api")

	db := sql.OpenDB(entrapg.NewConnector("host=db.example.com user=shop-api",
		entrapg.WithCredential(credential), entrapg.WithScope("api://database.example.com")))
	defer db.Close()

	var token *entrapg.TokenError
	if err := db.PingContext(context.Background()); errors.As(err, &token) {
		fmt.Println("no token for", token.Scope) // the test tenant accepts only scopes that end in /.default
	}
	// Output: no token for api://database.example.com
}

func ExampleWithLogger() {
	dsn, credential := exampleServer("shop-api")
	logger, logged := exampleLogger()

	db := sql.OpenDB(entrapg.NewConnector(dsn+"&user=shop-api", entrapg.WithCredential(credential),
		entrapg.WithLogger(logger)))
	defer db.Close()
	if err := db.PingContext(context.Background()); err != nil {
		log.Fatal(err)
	}
	<-logged // Ping does not wait for the logger
	// Output: level=DEBUG msg="entrapg: fetched a token" scope=https://ossrdbms-aad.database.windows.net/.default
}

func ExamplePoolConfig() {
	dsn, credential := exampleServer("shop-worker")

	ctx := context.Background()
	config, err := entrapg.PoolConfig(dsn+"&pool_max_conns=4", entrapg.WithCredential(credential))
	if err != nil {
		log.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	var user string
	if err := pool.QueryRow(ctx, "select session_user").Scan(&user); err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in as", user, "with at most", config.MaxConns, "connections")
	// Output: logged in as shop-worker with at most 4 connections
}

// Connect reports an invalid DSN before it dials.
func ExampleConfigError() {
	db := sql.OpenDB(entrapg.NewConnector("postgres://myserver.postgres.database.azure.com/mydb?sslmode=prefer"))
	defer db.Close()

	err := db.PingContext(context.Background())
	var config *entrapg.ConfigError
	if errors.As(err, &config) {
		fmt.Println("check", config.Setting)
	}
	// Output: check sslmode
}

// The environment credential cannot be created without its variables.
func ExampleTokenError() {
	os.Unsetenv("AZURE_TENANT_ID")
	db, err := sql.Open("entrapg", "host=myserver.postgres.database.azure.com user=shop-api entra_credential=environment")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	var token *entrapg.TokenError
	if err := db.PingContext(context.Background()); errors.As(err, &token) {
		fmt.Println(token.Credential+":", token.Err)
	}
	// Output: EnvironmentCredential: missing environment variable AZURE_TENANT_ID
}

// A token that is not a JSON Web Token does not identify a user, so the DSN must set one.
func ExampleUsernameError() {
	db := sql.OpenDB(entrapg.NewConnector("host=db.example.com", entrapg.WithCredential(opaque{})))
	defer db.Close()

	var username *entrapg.UsernameError
	if err := db.PingContext(context.Background()); errors.As(err, &username) {
		fmt.Println(username.Problem)
	}
	// Output: the token is not a JSON Web Token, so no user can be derived from it
}

func ExampleLoginError() {
	dsn, _ := exampleServer("shop-api")
	mallory := server().Tenant.NewUserAssignedIdentity("mallory")

	db := sql.OpenDB(entrapg.NewConnector(dsn+"&user=shop-api", entrapg.WithCredential(mallory)))
	defer db.Close()

	var login *entrapg.LoginError
	if err := db.PingContext(context.Background()); errors.As(err, &login) {
		fmt.Println("rejected as", login.User)
		fmt.Println(login.Hint)
	}
	// Output:
	// rejected as shop-api
	// the role is mapped to another object ID than the token's, for example because the identity was deleted and created again; map it again with pgaadauth_update_principal_with_oid, which keeps the role's privileges
}

func ExampleWithStdlib() {
	dsn, credential := exampleServer("shop-api")
	setUp := func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "set statement_timeout = '5s'") // or register types in conn.TypeMap()
		return err
	}

	db := sql.OpenDB(entrapg.NewConnector(dsn, entrapg.WithCredential(credential),
		entrapg.WithStdlib(stdlib.OptionAfterConnect(setUp))))
	defer db.Close()

	var timeout string
	if err := db.QueryRowContext(context.Background(), "show statement_timeout").Scan(&timeout); err != nil {
		log.Fatal(err)
	}
	fmt.Println(timeout)
	// Output: 5s
}

func ExampleWithConnConfig() {
	dsn, credential := exampleServer("shop-api")

	db := sql.OpenDB(entrapg.NewConnector(dsn, entrapg.WithCredential(credential),
		entrapg.WithConnConfig(func(config *pgx.ConnConfig) {
			config.RuntimeParams["application_name"] = "shop"
		})))
	defer db.Close()

	var name string
	if err := db.QueryRowContext(context.Background(), "show application_name").Scan(&name); err != nil {
		log.Fatal(err)
	}
	fmt.Println(name)
	// Output: shop
}

func ExampleConnector_Stats() {
	dsn, credential := exampleServer("shop-api")
	connector := entrapg.NewConnector(dsn, entrapg.WithCredential(credential))
	db := sql.OpenDB(connector)
	defer db.Close()
	if err := db.PingContext(context.Background()); err != nil {
		log.Fatal(err)
	}

	stats := connector.Stats()
	fmt.Println(stats.Logins, "login as", stats.User)
	// Output: 1 login as shop-api
}
