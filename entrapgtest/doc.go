// Package entrapgtest tests programs that log in to Azure Database for PostgreSQL with
// Microsoft Entra ID, without Azure. It starts a [Server], which is a real PostgreSQL that
// checks tokens as Azure does, and a [Tenant], which issues them. PostgreSQL must be
// installed: see [Start].
//
//	srv, err := entrapgtest.Start(ctx, entrapgtest.Config{})
//	if err != nil { … }
//	defer srv.Close()
//
//	app := srv.Tenant.NewUserAssignedIdentity("shop-api")
//	if err := srv.CreateRole(ctx, "", app); err != nil { … }
//	db := sql.OpenDB(entrapg.NewConnector(srv.DSN(), entrapg.WithCredential(app)))
//
// Start one server for all tests of a package, in TestMain. Starting takes a second or
// two. The first start with a version of PostgreSQL takes a few seconds more, because it
// runs initdb; later ones copy the result from the user's cache directory. Creating a
// role or a database for each test takes milliseconds; select it by the arguments of
// [Server.DSN].
//
// # Credentials
//
// A [Principal] is a credential itself. The tenant also answers over HTTPS as Entra
// does: [Tenant.ClientOptions] directs azidentity's credentials to it, and
// [Principal.Environ] returns the variables for EnvironmentCredential. A [Host] has the
// endpoints of managed identities: App Service, the Instance Metadata Service, Azure Arc
// and Service Fabric. A Go program in a separate process trusts the tenant's certificate
// if SSL_CERT_FILE is [Server.CAFile], except on macOS and Windows.
//
// # Roles
//
// [Server.CreateRole] maps a role to a principal. SQL scripts that create roles with
// Azure's functions work too: see [Server.CreateAdmin].
//
// # Failures
//
// [Server.SetFaults] injects failures of Entra, of managed identity endpoints and of
// logins. [Server.RevokeTokens] invalidates all tokens, [Server.Restart] restarts
// PostgreSQL, and [Server.Logins] returns the attempts to log in.
package entrapgtest
