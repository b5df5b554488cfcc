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

-- One server can stand behind several tenants.
create schema if not exists pgaadauth;
create table if not exists pgaadauth.principals (
	tenant text, name text, object_id text, object_type text
);
create table if not exists pgaadauth.roles (
	tenant text, role oid, object_id text, object_type text, is_admin boolean, is_mfa boolean, password text,
	primary key (tenant, role)
);

create or replace function public.pgaadauth_create_principal_with_oid(roleName text, objectId text, objectType text, isAdmin boolean, isMfa boolean)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
	secret constant text := gen_random_uuid()::text || gen_random_uuid()::text;
	actual text;
begin
	if objectType not in ('user', 'group', 'service') then
		raise exception 'invalid object type "%": it is one of user, group, service', objectType using errcode = '22023';
	end if;
	select object_type into actual from pgaadauth.principals where tenant = current_setting('entrapgtest.tenant') and object_id = lower(objectId);
	if actual <> objectType then
		raise exception 'incorrect object type provided for principal, given object type: ''%'', actual object type: ''%''', objectType, actual using errcode = 'XX000';
	end if;
	execute format('create role %I login password %L', roleName, secret);
	if isAdmin then
		execute format('alter role %I createrole createdb', roleName);
		execute format('grant azure_pg_admin to %I', roleName);
	else
		execute format('grant %I to azure_pg_admin with admin option', roleName);
	end if;
	insert into pgaadauth.roles
	select current_setting('entrapgtest.tenant'), oid, lower(objectId), objectType, isAdmin, isMfa, secret from pg_roles where rolname = roleName;
	return format('Created role for "%s"', roleName);
end $$;

create or replace function public.pgaadauth_create_principal(roleName text, isAdmin boolean, isMfa boolean)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
	found pgaadauth.principals;
begin
	select * into found from pgaadauth.principals where tenant = current_setting('entrapgtest.tenant') and name = roleName limit 1;
	if found is null then
		raise exception 'Could not validate AAD user % because its name is not found in the tenant.', roleName using errcode = 'XX000';
	end if;
	return public.pgaadauth_create_principal_with_oid(roleName, found.object_id, found.object_type, isAdmin, isMfa);
end $$;

create or replace function public.pgaadauth_list_principals(isAdminValue boolean)
returns table (rolename name, principalType text, objectId text, tenantId text, isMfa integer, isAdmin integer)
language sql security definer set search_path = pg_catalog, pg_temp as $$
	select r.rolname, m.object_type, m.object_id, m.tenant, m.is_mfa::integer, m.is_admin::integer
	from pgaadauth.roles m join pg_roles r on r.oid = m.role
	where m.tenant = current_setting('entrapgtest.tenant') and (m.is_admin or not isAdminValue)
	order by 1
$$;

revoke all on function public.pgaadauth_create_principal_with_oid, public.pgaadauth_create_principal, public.pgaadauth_list_principals from public;
grant execute on function public.pgaadauth_create_principal_with_oid, public.pgaadauth_create_principal, public.pgaadauth_list_principals to azure_pg_admin;
