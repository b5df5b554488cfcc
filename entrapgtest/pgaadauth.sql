-- What Azure Database for PostgreSQL has in the database postgres for Entra
-- administrators, as far as scripts that provision roles can tell.
-- https://learn.microsoft.com/azure/postgresql/security/security-manage-entra-users
-- Messages are Azure's where they are known; which SQLSTATE goes with them is not.

do $$ begin
	if not exists (select from pg_catalog.pg_roles where rolname = 'azure_pg_admin') then
		create role azure_pg_admin;
	end if;
end $$;
grant all on database postgres to azure_pg_admin with grant option;
grant all on schema public to azure_pg_admin with grant option;

-- pg_dump omits schemas whose names begin with pg_, and functions in pg_catalog
-- whose privileges are the initial ones, so roles without rights here can dump
-- the database. PostgreSQL reserves such names, hence the setting.
set allow_system_table_mods = on;
create schema if not exists pg_aadauth;
reset allow_system_table_mods;

-- Several tenants can share one server.
create table if not exists pg_aadauth.principals (
	tenant text, name text, object_id text, object_type text
);
create table if not exists pg_aadauth.roles (
	tenant text, role oid, object_id text, object_type text, is_admin boolean, is_mfa boolean, password text,
	primary key (tenant, role)
);

create or replace function pg_catalog.pgaadauth_create_principal_with_oid(roleName text, objectId text, objectType text, isAdmin boolean, isMfa boolean)
returns text language plpgsql security definer
set search_path = pg_catalog, pg_temp set client_min_messages = error set password_encryption = 'scram-sha-256' as $$
declare
	secret constant text := gen_random_uuid()::text || gen_random_uuid()::text;
	actual text;
begin
	if objectType not in ('user', 'group', 'service') then
		raise exception 'invalid object type "%": it is one of user, group, service', objectType using errcode = '22023';
	end if;
	select object_type into actual from pg_aadauth.principals where tenant = current_setting('entrapgtest.tenant') and object_id = lower(objectId);
	if actual <> objectType then
		raise exception 'incorrect object type provided for principal, given object type: ''%'', actual object type: ''%''', objectType, actual using errcode = 'XX000';
	end if;
	-- Errors and warnings show the statement as their context. The one with the
	-- password reports none: hence the settings above and the handler.
	execute format('create role %I login', roleName);
	begin
		execute format('alter role %I password %L', roleName, secret);
	exception when query_canceled or others then
		raise exception using message = sqlerrm, errcode = sqlstate;
	end;
	if isAdmin then
		execute format('alter role %I createrole createdb', roleName);
		execute format('grant azure_pg_admin to %I', roleName);
	else
		execute format('grant %I to azure_pg_admin with admin option', roleName);
	end if;
	insert into pg_aadauth.roles
	select current_setting('entrapgtest.tenant'), oid, lower(objectId), objectType, isAdmin, isMfa, secret from pg_roles where rolname = roleName;
	return format('Created role for "%s"', roleName);
end $$;

create or replace function pg_catalog.pgaadauth_create_principal(roleName text, isAdmin boolean, isMfa boolean)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
	found pg_aadauth.principals;
begin
	select * into found from pg_aadauth.principals where tenant = current_setting('entrapgtest.tenant') and name = roleName limit 1;
	if found is null then
		raise exception 'Could not validate AAD user % because its name is not found in the tenant.', roleName using errcode = 'XX000';
	end if;
	return pg_catalog.pgaadauth_create_principal_with_oid(roleName, found.object_id, found.object_type, isAdmin, isMfa);
end $$;

create or replace function pg_catalog.pgaadauth_list_principals(isAdminValue boolean)
returns table (rolename name, principalType text, objectId text, tenantId text, isMfa integer, isAdmin integer)
language sql security definer set search_path = pg_catalog, pg_temp as $$
	select r.rolname, m.object_type, m.object_id, m.tenant, m.is_mfa::integer, m.is_admin::integer
	from pg_aadauth.roles m join pg_roles r on r.oid = m.role
	where m.tenant = current_setting('entrapgtest.tenant') and (m.is_admin or not isAdminValue)
	order by 1
$$;

revoke all on function pg_catalog.pgaadauth_create_principal_with_oid, pg_catalog.pgaadauth_create_principal, pg_catalog.pgaadauth_list_principals from public;
grant execute on function pg_catalog.pgaadauth_create_principal_with_oid, pg_catalog.pgaadauth_create_principal, pg_catalog.pgaadauth_list_principals to azure_pg_admin;

delete from pg_catalog.pg_init_privs p using pg_catalog.pg_proc f
where p.objoid = f.oid and p.classoid = 'pg_catalog.pg_proc'::regclass and f.pronamespace = 'pg_catalog'::regnamespace and f.proname like 'pgaadauth\_%';
insert into pg_catalog.pg_init_privs (objoid, classoid, objsubid, privtype, initprivs)
select oid, 'pg_catalog.pg_proc'::regclass, 0, 'i', proacl from pg_catalog.pg_proc
where pronamespace = 'pg_catalog'::regnamespace and proname like 'pgaadauth\_%';
