package entrapgtest_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/entrapg/entrapg/entrapgtest"
)

// administrator starts a server and returns it with an administrator's session.
func administrator(t *testing.T, config entrapgtest.Config) (*entrapgtest.Server, *pgx.Conn) {
	t.Helper()
	s := start(t, config)
	p := s.Tenant.NewUserAssignedIdentity("db-admin")
	if err := s.CreateAdmin(t.Context(), "", p); err != nil {
		t.Fatal(err)
	}
	return s, must[*pgx.Conn](t)(session(t, s, p))
}

func TestAdministrator_CreatesRolesDatabasesAndGrants(t *testing.T) {
	t.Parallel()
	_, conn := administrator(t, entrapgtest.Config{})
	for _, sql := range []string{
		"create role reader", "create role app login password 'x'", "grant reader to app", "alter role app connection limit 5",
		"create database shop", "grant connect on database shop to app", "grant usage, create on schema public to app",
		"create table public.items ()", "grant select on public.items to reader", "create extension if not exists plpgsql",
		"revoke reader from app", "drop database shop",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestAdministrator_CannotRunProgramsReadFilesOrBecomeSuperuser(t *testing.T) {
	t.Parallel()
	s, conn := administrator(t, entrapgtest.Config{})
	superuser := must[*pgx.ConnConfig](t)(pgx.ParseConfig(s.AdminDSN())).User
	for _, sql := range []string{
		"create role helper createrole login", "select * from pgaadauth_create_principal('db-admin', true, false)",
		"create role programs in role pg_execute_server_program", "create role files in role pg_read_server_files, pg_write_server_files",
		"create role wide admin db-admin", "create role ship replication in role pg_create_subscription",
	} {
		_, _ = conn.Exec(t.Context(), sql) // may fail
	}
	own := s.Tenant.NewUserAssignedIdentity("stranger").ObjectID
	powers := []string{
		"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files", "pg_read_all_data", "pg_write_all_data",
		"pg_create_subscription", superuser,
	}
	for _, role := range powers {
		for _, sql := range []string{
			`grant "` + role + `" to "db-admin"`, `grant "` + role + `" to current_user with admin option`,
			`create role "r-` + role + `" in role "` + role + `"`, `alter group "` + role + `" add user helper`,
			`alter role "` + role + `" login password 'x'`, `set role "` + role + `"`, `set session authorization "` + role + `"`,
			`reassign owned by "` + role + `" to "db-admin"`, `alter role "` + role + `" rename to "db-x"`,
			`select pgaadauth_create_principal_with_oid('` + role + `', '7d', 'user', true, false)`,
			`select pgaadauth_update_principal_with_oid('` + role + `', '` + own + `', 'service', false, false)`,
			`select pgaadauth_update_principal_with_oid('` + role + `', '` + own + `', 'service', true, false)`,
			`security label for "pgaadauth" on role "` + role + `" is 'aadauth,oid=` + own + `,type=service'`,
			`select pgaadauth_update_principal_with_oid('` + role + `', '7d', 'user', true, false)`,
			`security label for "pgaadauth" on role "` + role + `" is 'aadauth,oid=7d,type=user,admin'`,
		} {
			if tag, err := conn.Exec(t.Context(), sql); err == nil {
				t.Errorf("%s: %s", sql, tag)
			}
		}
	}
	for _, sql := range []string{
		"alter role current_user superuser", "create role root superuser", "alter role current_user bypassrls",
		"alter role current_user replication", "create role copier login replication",
		"copy (select 1) to program 'id'", "copy (select 1) to '/tmp/entrapg-out'",
		"create temporary table t (x text); copy t from '/etc/passwd'", "create temporary table t (x text); copy t from program 'id'",
		"select pg_read_file('postgresql.conf')", "select pg_read_binary_file('/etc/passwd')", "select pg_ls_dir('/')",
		"select pg_stat_file('/etc/passwd')", "select lo_import('/etc/passwd')", "select lo_export(1, '/tmp/entrapg-out')",
		"create extension file_fdw", "create extension dblink", "create extension adminpack", "create language plperlu",
		"create extension plpython3u", "create function f() returns int language c as 'libc', 'getpid'",
		"create function f() returns int language internal as 'pg_backend_pid'", "load '/tmp/x.so'",
		"alter system set archive_command = 'id'", "set dynamic_library_path = '/tmp'", "create tablespace t location '/tmp'",
		"create event trigger t on ddl_command_end execute function pg_event_trigger_ddl_commands()",
		"create foreign data wrapper w", "create subscription s connection 'host=x' publication p",
		"update pg_authid set rolsuper = true", "select rolpassword from pg_authid", "select * from pg_hba_file_rules",
		"insert into pg_auth_members select * from pg_auth_members", "set allow_system_table_mods = on",
		"select * from pg_aadauth.principals", "insert into pg_aadauth.tenants values ('x', false, true)",
		"insert into pg_shseclabel select * from pg_shseclabel", "create table pg_aadauth.t ()", "drop schema pg_aadauth cascade",
		"create or replace function pg_catalog.pgaadauth_list_principals(isAdminValue boolean) returns int language sql as 'select 1'",
	} {
		if tag, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err == nil {
			t.Errorf("%s: %s", sql, tag)
		}
	}
	var reached string
	if err := conn.QueryRow(t.Context(), `
		select coalesce(string_agg(m.rolname || ' is ' || r.rolname, ', '), '')
		from pg_roles r, pg_roles m
		where pg_has_role(m.oid, r.oid, 'member') and not m.rolsuper and (r.rolsuper or r.rolname = any($1)) and r.oid <> m.oid
			and m.rolname not like 'pg\_%'`, powers).Scan(&reached); err != nil || reached != "" {
		t.Errorf("%v: %s", err, reached)
	}
}

// A replica's settings contain the connection string of the primary.
func TestAdministrator_DoesNotSeeSuperusersPassword(t *testing.T) {
	t.Parallel()
	primary, conn := administrator(t, entrapgtest.Config{})
	_, _ = conn.Exec(t.Context(), `grant pg_read_all_settings, pg_monitor to "db-admin"`) // works on 14 and 15
	replica, err := entrapgtest.Start(t.Context(), entrapgtest.Config{Primary: primary})
	if err != nil && strings.Contains(err.Error(), "no such file") {
		t.Skip(err) // some builds of PostgreSQL have no pg_basebackup
	}
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	password := must[*pgx.ConnConfig](t)(pgx.ParseConfig(primary.AdminDSN())).Password
	if conninfo := admin(t, replica, "show primary_conninfo"); strings.Contains(conninfo, password) ||
		!strings.Contains(conninfo, "passfile") {
		t.Errorf("primary_conninfo: %s", conninfo)
	}
}

// Errors and warnings have a context, which quotes SQL statements.
func TestAdministrator_PasswordsOfRolesStayHidden(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	p := s.Tenant.NewUserAssignedIdentity("db-admin")
	if err := s.CreateAdmin(t.Context(), "", p); err != nil {
		t.Fatal(err)
	}
	config := must[*pgx.ConnConfig](t)(pgx.ParseConfig(s.DSN()))
	config.User, config.Password = p.Name, token(t, p, audience).Token
	var notices strings.Builder
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		notices.WriteString(n.Message + n.Detail + n.Where + "\n")
	}
	conn := must[*pgx.Conn](t)(pgx.ConnectConfig(t.Context(), config))
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(),
		"set password_encryption = 'md5'; set client_min_messages = debug5; set debug_print_parse = on",
		pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	call := func(name string) {
		_, err := conn.Exec(t.Context(),
			"select pgaadauth_create_principal_with_oid("+name+", '7d', 'service', false, false)",
			pgx.QueryExecModeSimpleProtocol)
		var failure *pgconn.PgError
		if errors.As(err, &failure) {
			notices.WriteString(failure.Message + failure.Detail + failure.Hint + failure.Where + failure.InternalQuery + "\n")
		}
	}
	for _, name := range []string{"'db-admin'", "'pg_mine'", "'public'", "''", "null", "repeat('x', 100)", "'new-app'"} {
		call(name)
	}
	for _, timeout := range []string{"1ms", "2ms", "3ms", "5ms", "8ms"} {
		_, _ = conn.Exec(t.Context(), "set statement_timeout = '"+timeout+"'")
		call("'late-" + timeout + "'")
	}
	if strings.Contains(notices.String(), "password '") ||
		!strings.Contains(notices.String(), `role "db-admin" already exists`) {
		t.Errorf("notices: %s", notices.String())
	}
}

func TestServer_DatabaseWithAdministratorCanBeDumped(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("pg_dump")
	if err != nil {
		t.Skip(err)
	}
	s, conn := administrator(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("dumper")
	createRole(t, s, "", app)
	if _, err := conn.Exec(t.Context(), "create table public.orders (); grant select on public.orders to dumper",
		pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "--schema-only", "--no-password", s.DSN())
	cmd.Env = append(cmd.Environ(), "PGUSER=dumper", "PGPASSWORD="+token(t, app, audience).Token)
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "server version mismatch") {
		t.Skipf("%s", out)
	}
	if err != nil || !strings.Contains(string(out), "CREATE TABLE public.orders") ||
		strings.Contains(string(out), "aadauth") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestServer_TooManyClientsAre53300(t *testing.T) {
	t.Parallel()
	s := start(t, entrapgtest.Config{})
	app := s.Tenant.NewUserAssignedIdentity("crowd")
	createRole(t, s, "", app)
	if err := s.CreateAdmin(t.Context(), "", s.Tenant.NewUserAssignedIdentity("db-admin")); err != nil {
		t.Fatal(err)
	}
	superuser := must[*pgx.Conn](t)(pgx.Connect(t.Context(), s.AdminDSN()))
	if _, err := superuser.Exec(t.Context(), "alter system set max_connections = 10"); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for { // including the connections that are reserved for superusers
		conn, err := pgconn.Connect(t.Context(), s.AdminDSN())
		if err != nil {
			break
		}
		defer conn.Close(context.Background())
	}
	var pgErr *pgconn.PgError
	if err := logIn(t, s, app.Name, token(t, app, audience).Token); !errors.As(err, &pgErr) || pgErr.Code != "53300" {
		t.Errorf("got %v", err)
	}
}
