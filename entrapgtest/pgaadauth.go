package entrapgtest

import (
	"context"
	_ "embed"
	"errors"

	"github.com/jackc/pgx/v5"
)

//go:embed pgaadauth.sql
var pgaadauth string

// tenantSetting tells the functions of pgaadauth.sql which tenant's server a
// session goes through.
const tenantSetting = "entrapgtest.tenant"

// dropPowers removes the roles whose members act as the user who runs PostgreSQL,
// or read and write all tables. From PostgreSQL 16 on, only members with the admin
// option can grant them, so nobody can. PostgreSQL looks for membership by OID and
// gives these OIDs to no other role.
const dropPowers = `
	delete from pg_catalog.pg_authid
	where pg_catalog.current_setting('server_version_num')::int < 160000 and rolname in (
		'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_read_all_data', 'pg_write_all_data')`

// CreateAdmin maps a role as [Server.CreateRole] does, as an Entra administrator:
// in the database postgres, it may call pgaadauth_create_principal,
// pgaadauth_create_principal_with_oid and pgaadauth_list_principals, which are
// installed there with the first administrator. Names are those of the principals
// that the tenant has when the administrator's session begins. SECURITY LABEL is
// not known.
//
// Administrators can create roles and databases. They cannot run programs or read
// and write files as the user who runs PostgreSQL: on PostgreSQL 14 and 15, where
// a role that can create roles can grant any other role, the first administrator
// removes pg_execute_server_program, pg_read_server_files, pg_write_server_files,
// pg_read_all_data and pg_write_all_data from a throwaway PostgreSQL. A PostgreSQL
// that Config.Upstream names is left as it is.
func (s *Server) CreateAdmin(ctx context.Context, role string, p *Principal) error {
	if err := s.provision(ctx); err != nil {
		return err
	}
	return s.createRole(ctx, role, p, true)
}

// provision installs Azure's functions. From then on, the database tells which
// roles are mapped: those that had been before are taken along.
func (s *Server) provision(ctx context.Context) error {
	s.roles.mu.Lock()
	defer s.roles.mu.Unlock()
	if s.roles.provisioned {
		return nil
	}
	err := s.inPostgres(ctx, func(conn *pgx.Conn) error {
		const lock = "select pg_catalog.pg_advisory_lock(727263)" // servers that share a PostgreSQL take turns
		if _, err := conn.Exec(ctx, lock+";"+pgaadauth, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		if s.cluster != nil {
			if _, err := conn.Exec(ctx, dropPowers); err != nil {
				return err
			}
		}
		for role, m := range s.roles.mapped {
			if err := s.remember(ctx, conn, role, m); err != nil {
				return err
			}
		}
		return nil
	})
	s.roles.provisioned = err == nil
	return err
}

// inPostgres does something as superuser in the database postgres, where
// administrators can create functions.
func (s *Server) inPostgres(ctx context.Context, do func(*pgx.Conn) error) error {
	config := s.upstream.Copy()
	config.Database = "postgres"
	config.RuntimeParams["search_path"] = "pg_catalog"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return do(conn)
}

// remember has the database know a mapping.
func (s *Server) remember(ctx context.Context, conn *pgx.Conn, role string, m mapping) error {
	_, err := conn.Exec(ctx, `
		insert into pg_aadauth.roles select $1, oid, $3, $4, $5, false, $6 from pg_catalog.pg_roles where rolname = $2
		on conflict (tenant, role) do update set object_id = $3, object_type = $4, is_admin = $5, password = $6`,
		s.Tenant.ID, role, m.objectID, m.objectType, m.admin, m.password)
	return err
}

// mappingOf returns what a role is mapped to.
func (s *Server) mappingOf(ctx context.Context, role string) (m mapping, mapped bool, err error) {
	m, mapped, provisioned := s.roles.find(role)
	if !provisioned {
		return m, mapped, nil
	}
	err = s.inPostgres(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `
			select object_id, object_type, is_admin, password
			from pg_aadauth.roles m join pg_catalog.pg_roles r on r.oid = m.role
			where m.tenant = $1 and r.rolname = $2`,
			s.Tenant.ID, role).Scan(&m.objectID, &m.objectType, &m.admin, &m.password)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return mapping{}, false, nil
	}
	return m, err == nil, err
}

// introduce has the database know the tenant's principals.
func (s *Server) introduce(ctx context.Context) error {
	var names, ids, types []string
	s.Tenant.mu.Lock()
	for _, p := range s.Tenant.principals {
		names, ids, types = append(names, p.Name), append(ids, p.ObjectID), append(types, p.Kind.objectType())
	}
	s.Tenant.mu.Unlock()
	return s.inPostgres(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `
			with gone as (delete from pg_aadauth.principals where tenant = $1)
			insert into pg_aadauth.principals select $1, * from unnest($2::text[], $3::text[], $4::text[])`,
			s.Tenant.ID, names, ids, types)
		return err
	})
}
