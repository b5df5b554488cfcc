package entrapgtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/entrapgtest"
)

// administer logs in as a new administrator to a database.
func administer(t testing.TB, s *entrapgtest.Server, database string) *pgx.Conn {
	t.Helper()
	p := s.Tenant.NewUserAssignedIdentity("administrator of " + database)
	if err := s.CreateAdmin(t.Context(), "", p); err != nil {
		t.Fatal(err)
	}
	dsn := strings.Replace(s.DSN(), "/postgres?", "/"+database+"?", 1)
	conn := must[*pgx.Conn](t)(connect(t, dsn, p.Name, token(t, p, audience).Token))
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// run runs statements by the simple protocol.
func run(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func hasCode(err error, code string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == code
}

func TestPrincipal_RecreatedIdentityIsMappedAgainWithItsGrants(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	conn := administer(t, s, "postgres")
	old := s.Tenant.NewUserAssignedIdentity("worker")
	run(t, conn,
		`select pgaadauth_create_principal('worker', false, false); create table orders (n int); grant select on orders to worker`)
	recreated := s.Tenant.NewUserAssignedIdentity("worker")
	secret := token(t, recreated, audience).Token
	mismatch := `Service principal oid mismatch for role "worker". The oid in the security label [` + old.ObjectID +
		`] does not match the appid [` +
		recreated.ClientID + `] or oid [` + recreated.ObjectID + `] in the token.`
	var pgErr *pgconn.PgError
	if err := logIn(t, s, "worker", secret); !errors.As(err, &pgErr) || pgErr.Code != "28000" ||
		pgErr.Message != mismatch {
		t.Errorf("got %v, want %s", err, mismatch)
	}

	run(t, conn,
		`select pgaadauth_update_principal_with_oid('worker', '`+strings.ToUpper(recreated.ObjectID)+`', 'service', false, false)`)
	worker, err := connect(t, s.DSN(), "worker", secret)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close(t.Context())
	run(t, worker, "select * from orders")
	if err := logIn(t, s, "worker", token(t, old, audience).Token); err == nil {
		t.Error("the old identity can still log in")
	}

	// An application ID identifies a service too.
	run(t, conn, `select pgaadauth_update_principal_with_oid('worker', '`+old.ClientID+`', 'service', false, false)`)
	if err := logIn(t, s, "worker", token(t, old, audience).Token); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{
		`select pgaadauth_update_principal_with_oid('nobody', '` + old.ObjectID + `', 'service', false, false)`,
		`security label for "pgaadauth" on role nobody is 'aadauth,oid=` + old.ObjectID + `,type=service'`,
	} {
		if _, err := conn.Exec(t.Context(), sql); !errors.As(err, &pgErr) || pgErr.Code != "42704" ||
			pgErr.Message != `role "nobody" does not exist` {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestPrincipal_NameErrorsAreAzureMessages(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	conn := administer(t, s, "postgres")
	s.Tenant.NewServicePrincipal("twin")
	s.Tenant.NewUserAssignedIdentity("twin")
	const notUnique = "Cannot validate Microsoft Entra ID user \"twin\" because its name isn't unique in the tenant.\n" +
		"Make sure it's correct and retry."
	const notFound = "Could not validate AAD user Twin because its name is not found in the tenant."
	for sql, want := range map[string]string{
		`select pgaadauth_create_principal('twin', false, false)`:                  notUnique,
		`create role twin; security label for pgaadauth on role twin is 'aadauth'`: notUnique,
		`select pgaadauth_create_principal('Twin', false, false)`:                  notFound,
	} {
		_, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Message != want {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	late := s.Tenant.NewUserAssignedIdentity("created after the session began")
	run(t, conn, `select pgaadauth_create_principal('created after the session began', false, false)`)
	if err := logIn(t, s, late.Name, token(t, late, audience).Token); err != nil {
		t.Error(err)
	}
}

func TestServer_SecurityLabelMapsExistingRoles(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	run(t, administer(t, s, "postgres"), "create database shop")
	conn := administer(t, s, "shop") // Azure's functions are in postgres, labels in every database

	extended := func(sql string) error { _, err := conn.Exec(t.Context(), sql); return err }
	simple := func(sql string) error {
		_, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	prepared := func(sql string) error {
		if _, err := conn.Prepare(t.Context(), "labels", sql); err != nil {
			return err
		}
		return extended("labels")
	}
	tests := map[string]struct {
		do  func(string) error
		sql string
	}{
		"simple":           {simple, `security label for "pgaadauth" on role "{role}" is '{label}'`},
		"extended":         {extended, `SECURITY LABEL FOR "pgaadauth" ON ROLE "{role}" IS '{label}';`},
		"prepared":         {prepared, `Security Label for pgaadauth on role "{role}" is '{label}'`},
		"on several lines": {simple, "security label\n  for 'pgaadauth'\n\ton role \"{role}\"\n  is '{label}'"},
		"between others": {
			simple,
			`select 1; security label for "pgaadauth" on role "{role}" is '{label}'; grant connect on database shop to "{role}"`,
		},
		"in a transaction": {simple, `begin; create role other; security label for "pgaadauth" on role "{role}" is '{label}'; commit`},
		"in a block":       {simple, `do $$ begin security label for "pgaadauth" on role "{role}" is '{label}'; end $$`},
		"in execute":       {simple, `do $$ begin execute 'security label for "pgaadauth" on role "{role}" is ''{label}'''; end $$`},
		"in format": {
			simple,
			`do $$ begin execute format('security label for "pgaadauth" on role %I is %L', '{role}', '{label}'); end $$`,
		},
		`it's "quoted"`:  {simple, `security label for "pgaadauth" on role "it's ""quoted""" is '{label}'`},
		"folded":         {simple, `security label for "pgaadauth" on role FOLDED is '{label}'`},
		"with spaces":    {simple, `security label for "pgaadauth" on role "{role}" is 'aadauth, oid={oid}, type=service'`},
		"by name":        {simple, `security label for "pgaadauth" on role "{role}" is 'aadauth'`},
		"by application": {simple, `security label for "pgaadauth" on role "{role}" is 'aadauth,oid={appid},type=service'`},
	}
	for name, test := range tests {
		p := s.Tenant.NewServicePrincipal(name)
		run(t, conn, "create role "+pgx.Identifier{name}.Sanitize()+" login")
		sql := strings.NewReplacer("{label}", "aadauth,oid="+p.ObjectID+",type=service", "{role}", name,
			"{appid}", p.ClientID, "{oid}", p.ObjectID).Replace(test.sql)
		if err := test.do(sql); err != nil {
			t.Errorf("%s: %s: %v", name, sql, err)
		}
		if err := logIn(t, s, name, token(t, p, audience).Token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	var labels int
	const visible = "select count(*) from pg_seclabels where provider = 'pgaadauth' and objtype = 'role' " +
		"and label ~ '^aadauth,oid=[-0-9a-f]{36},type=service$'"
	if err := conn.QueryRow(t.Context(), visible).Scan(&labels); err != nil || labels != len(tests) {
		t.Errorf("%d labels are visible, %v", labels, err)
	}
	for sql, code := range map[string]string{
		`security label for "pgaadauth" on role "simple" is 'aadauth,oid=1,type=application'`: "22023",
		`security label for "pgaadauth" on role "simple" is 'oid=1'`:                          "22023",
		`security label for "pgaadauth" on role postgres is 'aadauth,oid=1,type=service'`:     "42501",
		`security label for "selinux" on role "simple" is 'x'`:                                "22023",
	} {
		if _, err := conn.Exec(t.Context(), sql); !hasCode(err, code) {
			t.Errorf("%s: %v, want %s", sql, err, code)
		}
	}

	stranger := token(t, s.Tenant.NewServicePrincipal("stranger"), audience).Token
	run(t, conn, `begin; security label for "pgaadauth" on role "simple" is null; rollback`)
	if err := logIn(t, s, "simple", stranger); err == nil || !strings.Contains(err.Error(), "oid mismatch") {
		t.Errorf("after the rollback: %v", err)
	}
	run(t, conn, `security label for "pgaadauth" on role "simple" is null`)
	if err := logIn(t, s, "simple", stranger); err == nil || !strings.Contains(err.Error(), "failed SASL auth") {
		t.Errorf("without a label: %v", err)
	}

	app := s.Tenant.NewUserAssignedIdentity("app")
	createRole(t, s, "", app)
	session := must[*pgx.Conn](t)(connect(t, s.DSN(), "app", token(t, app, audience).Token))
	defer session.Close(context.Background())
	for _, sql := range []string{
		`security label for "pgaadauth" on role app is 'aadauth,oid=1,type=service,admin'`,
		`call pg_aadauth.security_label('app', 'aadauth,oid=1,type=service,admin')`,
		`select * from pg_aadauth.principals`,
	} {
		if _, err := session.Exec(t.Context(), sql); err == nil {
			t.Errorf("a role without privileges can do this: %s", sql)
		}
	}
}

func TestServer_OtherStatementsOfAdministratorAreUnchanged(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	conn := administer(t, s, "postgres")
	run(t, conn, "create table copied (t text); create role app login")
	rows := strings.Repeat(strings.Repeat("security label for pgaadauth on role app is null ", 40)+"\n", 2000)
	if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(rows), "copy copied from stdin"); err != nil {
		t.Fatal(err)
	}
	var n, size int
	if err := conn.QueryRow(t.Context(), "select count(*), sum(length(t)) from copied").Scan(&n, &size); err != nil ||
		n != 2000 ||
		size != len(rows)-n {
		t.Errorf("%d rows of %d bytes, %v", n, size, err)
	}
	long := strings.Repeat("x", 2<<20)
	var back string
	if err := conn.QueryRow(t.Context(), "select '"+long+"' as pgaadauth",
		pgx.QueryExecModeSimpleProtocol).Scan(&back); err != nil ||
		back != long {
		t.Errorf("a long statement: %d bytes, %v", len(back), err)
	}
	if err := conn.QueryRow(t.Context(), "select $1::text", long).Scan(&back); err != nil || back != long {
		t.Errorf("a long parameter: %d bytes, %v", len(back), err)
	}
}

func TestServer_MFAFlagRequiresTheClaim(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	conn := administer(t, s, "postgres")
	alice, bob := s.Tenant.NewUser("alice@contoso.example"), s.Tenant.NewUser("bob@contoso.example")
	bob.Claims = map[string]any{"amr": []string{"pwd"}}
	run(t, conn, `select pgaadauth_create_principal('alice@contoso.example', false, true);
		select pgaadauth_create_principal('bob@contoso.example', false, true)`)
	if err := logIn(t, s, alice.Name, token(t, alice, audience).Token); err != nil {
		t.Errorf("with mfa: %v", err)
	}
	if err := logIn(t, s, bob.Name, token(t, bob, audience).Token); !hasCode(err, "28000") {
		t.Errorf("without mfa: %v", err)
	}
	logins := s.Logins()
	if l := logins[len(logins)-1]; !strings.Contains(l.Reason, "mfa") {
		t.Errorf("recorded as %+v", l)
	}
	run(t, conn,
		`select pgaadauth_update_principal_with_oid('bob@contoso.example', '`+bob.ObjectID+`', 'user', false, false)`)
	if err := logIn(t, s, bob.Name, token(t, bob, audience).Token); err != nil {
		t.Errorf("not required: %v", err)
	}
}

func TestServer_GroupSyncCreatesRolesForMembers(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{GroupSync: true})
	conn := administer(t, s, "postgres")
	readers := s.Tenant.NewGroup("readers")
	alice, taken := s.Tenant.NewUser("alice@contoso.example", readers), s.Tenant.NewUser("taken@contoso.example", readers)
	app := s.Tenant.NewUserAssignedIdentity("app")
	app.Groups = []*entrapgtest.Principal{readers}
	stranger := s.Tenant.NewUser("stranger@contoso.example")
	run(t, conn, `select pgaadauth_create_principal('readers', false, false); create table books (n int); grant select on books to readers;
		create role "taken@contoso.example" login`)
	var on string
	if err := conn.QueryRow(t.Context(), "show pgaadauth.enable_group_sync").Scan(&on); err != nil || on != "on" {
		t.Errorf("the parameter is %q, %v", on, err)
	}
	read := func(p *entrapgtest.Principal, role string) error {
		conn, err := connect(t, s.DSN(), role, token(t, p, audience).Token)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		_, err = conn.Exec(t.Context(), "select * from books")
		return err
	}
	if err := read(alice, alice.Name); err == nil {
		t.Error("a member has a role before the sync")
	}
	for range 2 { // the second time without an effect
		run(t, conn, "select * from pgaadauth_sync_roles_for_group_members();")
	}
	for _, p := range []*entrapgtest.Principal{alice, app} {
		for _, role := range []string{p.Name, "readers"} {
			if err := read(p, role); err != nil {
				t.Errorf("%s as %s: %v", p.Name, role, err)
			}
		}
	}
	for _, p := range []*entrapgtest.Principal{taken, stranger} {
		if err := read(p, p.Name); err == nil {
			t.Errorf("%s has a role", p.Name)
		}
	}

	run(t, conn, "alter role readers nologin")
	if err := read(alice, "readers"); !hasCode(err, "28000") {
		t.Errorf("as the group, without login: %v", err)
	}
	app.Groups = nil
	if err := s.SyncGroups(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := read(app, app.Name); !hasCode(err, "42501") {
		t.Errorf("a former member: %v", err)
	}
	if err := read(alice, alice.Name); err != nil {
		t.Error(err)
	}

	off := startFront(t, entrapgtest.Config{})
	if err := off.SyncGroups(t.Context()); !hasCode(err, "55000") ||
		!strings.Contains(err.Error(), "pgaadauth.enable_group_sync") {
		t.Errorf("without group sync: %v", err)
	}
}
