package entrapgtest_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	"github.com/entrapg/entrapg"
	"github.com/entrapg/entrapg/entrapgtest"
)

func Example() {
	ctx := context.Background()
	server, err := entrapgtest.Start(ctx, entrapgtest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	alice := server.Tenant.NewUser("alice@contoso.example")
	if err := server.CreateRole(ctx, "", alice); err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(entrapg.NewConnector(server.DSN(), entrapg.WithCredential(alice)))
	defer db.Close()
	db.SetMaxIdleConns(0) // every query logs in

	fmt.Println("first:", db.PingContext(ctx))
	if err := server.RevokeTokens(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("after its token was revoked:", db.PingContext(ctx))
	for _, login := range server.Logins() {
		fmt.Println(login.User, login.Accepted)
	}
	// Output:
	// first: <nil>
	// after its token was revoked: <nil>
	// alice@contoso.example true
	// alice@contoso.example false
	// alice@contoso.example true
}
