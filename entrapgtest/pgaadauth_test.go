package entrapgtest_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/entrapgtest"
)

func TestPrincipal_AdministratorCreatesRolesAsOnAzure(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	before := s.Tenant.NewUserAssignedIdentity("before")
	createRole(t, s, "", before)
	admin := s.Tenant.NewUserAssignedIdentity("db-admin")
	if err := s.CreateAdmin(t.Context(), "", admin); err != nil {
		t.Fatal(err)
	}
	after := s.Tenant.NewUserAssignedIdentity("after")
	createRole(t, s, "", after)
	api := s.Tenant.NewUserAssignedIdentity("shop-api")
	alice := s.Tenant.NewUser("alice@contoso.example")
	member := s.Tenant.NewUser("carol@contoso.example", s.Tenant.NewGroup("readers"))
	password := func(p *entrapgtest.Principal) string { return token(t, p, audience).Token }

	conn, err := connect(t, s.DSN(), "db-admin", password(admin))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	ask := func(sql string, args ...any) (text string, err error) {
		err = conn.QueryRow(t.Context(), sql, args...).Scan(&text)
		return text, err
	}
	for _, sql := range []string{
		`select * from pgaadauth_create_principal('shop-api', false, false)`,
		`select * from pgaadauth_create_principal('readers', false, false)`,
		`select * from pgaadauth_create_principal_with_oid('al', '` + strings.ToUpper(alice.ObjectID) + `', 'user', true, false)`,
	} {
		if got, err := ask(sql); err != nil || !strings.HasPrefix(got, `Created role for "`) {
			t.Errorf("%s: %q, %v", sql, got, err)
		}
	}
	for _, test := range []struct{ sql, want string }{
		{
			`select string_agg(rolename || ' ' || principalType || ' ' || isAdmin, ', ') from pgaadauth_list_principals(true)`,
			"al user 1, db-admin service 1",
		},
		{
			`select string_agg(rolename || ' ' || principalType || ' ' || isAdmin || isMfa, ', ') from pgaadauth_list_principals(false)`,
			"after service 00, al user 10, before service 00, db-admin service 10, readers group 00, shop-api service 00",
		},
		{
			`select objectId || ' ' || tenantId from pgaadauth_list_principals(false) where rolename = 'shop-api'`,
			api.ObjectID + " " + s.Tenant.ID,
		},
		{
			`select (has_database_privilege('postgres', 'create') and pg_has_role('azure_pg_admin', 'member'))::text ` +
				`|| current_setting('role')`,
			"truenone",
		},
	} {
		if got, err := ask(test.sql); err != nil || got != test.want {
			t.Errorf("%s: %q, %v, want %q", test.sql, got, err, test.want)
		}
	}

	for user, p := range map[string]*entrapgtest.Principal{
		"shop-api": api, "al": alice, "readers": member,
		"before": before, "after": after,
	} {
		if err := logIn(t, s, user, password(p)); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	if err := logIn(t, s, "shop-api", password(before)); err == nil {
		t.Error("another principal is accepted as shop-api")
	}

	for sql, code := range map[string]string{
		`select pgaadauth_create_principal('nobody', false, false)`:                                    "XX000", // not in the tenant
		`select pgaadauth_create_principal('shop-api', false, false)`:                                  "42710", // exists
		`select pgaadauth_create_principal_with_oid('x', '7d', 'application', false,false)`:            "22023",
		`select pgaadauth_create_principal_with_oid('x', '` + api.ObjectID + `', 'user', false,false)`: "XX000", // a service
		`select * from pg_aadauth.principals`:                                                          "42501",
	} {
		_, err := ask(sql)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != code {
			t.Errorf("%s: %v, want %s", sql, err, code)
		}
	}

	// A dropped role is no longer mapped, even if a role with its name is created again.
	if _, err := conn.Exec(t.Context(), `drop role "shop-api"; create role "shop-api" login`,
		pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if err := logIn(t, s, "shop-api", password(api)); err == nil || !strings.Contains(err.Error(), "failed SASL auth") {
		t.Errorf("a role that is not mapped: %v", err)
	}
}

func TestPrincipal_OnlyAdministratorCreatesRoles(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("shop-api")
	createRole(t, s, "", app)
	if err := s.CreateAdmin(t.Context(), "", s.Tenant.NewUser("admin@contoso.example")); err != nil {
		t.Fatal(err)
	}
	conn, err := connect(t, s.DSN(), "shop-api", token(t, app, audience).Token)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, call := range []string{
		"create_principal('shop-api', false, false)",
		"create_principal_with_oid('x', '7d', 'user', true, false)", "list_principals(false)",
	} {
		_, err := conn.Exec(t.Context(), "select pgaadauth_"+call)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "42501" {
			t.Errorf("%s: %v, want permission denied", call, err)
		}
	}
}

func TestServer_SharedPostgreSQLKeepsRolesSeparate(t *testing.T) {
	t.Parallel()
	one := start(t, entrapgtest.Config{})
	other := start(t, entrapgtest.Config{Upstream: one.AdminDSN()})
	for name, s := range map[string]*entrapgtest.Server{"admin-one": one, "admin-other": other} {
		admin := s.Tenant.NewUserAssignedIdentity(name)
		if err := s.CreateAdmin(t.Context(), "", admin); err != nil {
			t.Fatal(err)
		}
		conn, err := connect(t, s.DSN(), name, token(t, admin, audience).Token)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		var roles string
		if err := conn.QueryRow(t.Context(),
			"select string_agg(rolename, ', ') from pgaadauth_list_principals(false)").Scan(&roles); err != nil ||
			roles != name {
			t.Errorf("%s sees %q, %v", name, roles, err)
		}
	}
}

func TestServer_OnLoginReceivesEveryAttempt(t *testing.T) {
	heard := make(chan entrapgtest.Login, 10)
	s := startFront(t, entrapgtest.Config{OnLogin: func(l entrapgtest.Login) { heard <- l }})
	app := s.Tenant.NewUserAssignedIdentity("heard")
	createRole(t, s, "", app)
	good := token(t, app, audience).Token
	for _, password := range []string{good, "secret"} {
		_ = logIn(t, s, "heard", password)
	}
	if first, second := <-heard, <-heard; !first.Accepted || second.Accepted ||
		second.Reason != "the password is not a token" {
		t.Errorf("got %+v and %+v", first, second)
	}
	if n := len(s.Logins()); n != 2 {
		t.Errorf("%d logins are kept", n)
	}
}

func TestServer_RejectSetsErrorResponse(t *testing.T) {
	s := startFront(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("rejected")
	createRole(t, s, "", app)
	s.SetFaults(entrapgtest.Faults{Reject: &entrapgtest.Rejection{Code: "08P01", Message: "no more", Hint: "go"}})
	err := logIn(t, s, "rejected", token(t, app, audience).Token)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "08P01" || pgErr.Message != "no more" || pgErr.Hint != "go" {
		t.Errorf("got %v", err)
	}
}

func TestRoles_ServersThatShareAPostgreSQLTakeTurns(t *testing.T) {
	t.Parallel()
	var running sync.WaitGroup
	for range 8 {
		s := startFront(t, entrapgtest.Config{})
		admin := s.Tenant.NewUserAssignedIdentity("turns-admin")
		running.Go(func() {
			for range 5 {
				if err := s.CreateAdmin(t.Context(), "", admin); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
}
