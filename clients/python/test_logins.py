"""Each way logs in before and after its first token expires, and is rejected when it should be."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from azure.core.credentials import AccessToken
from azure.identity import DefaultAzureCredential, EnvironmentCredential
from azure_postgresql_auth.errors import EntraConnectionValueError

from conftest import CREDENTIALS, TENANT
from ways import (
    DRIVERS,
    MICROSOFT,
    AsyncpgPool,
    AsyncPsycopgPool,
    MicrosoftPsycopg,
    MicrosoftPsycopg2,
    MicrosoftSQLAlchemy,
    Psycopg2,
    PsycopgPool,
    TokenConnection,
    loop,
)

OPEN = {}  # ways that have logged in, by themselves and their role


def opened(way, role):
    if (way, role) not in OPEN:
        # Microsoft's library derives the user from the token.
        settings = {} if way in MICROSOFT else dict(user=role)
        OPEN[way, role] = way.as_identity(role, **settings)
        user, _ = OPEN[way, role].login()
        assert user == role
    return OPEN[way, role]


@pytest.fixture(scope="session", autouse=True)
def close():
    yield
    for way in OPEN.values():
        way.close()
    loop.close()


logins = pytest.mark.parametrize(
    ("way", "role"), [(way, "shop-api") for way in MICROSOFT + DRIVERS] + [(way, "reporting") for way in DRIVERS]
)


@logins
def test_logs_in(way, role, kept):
    opened(way, role)


@logins
def test_logs_in_again_after_its_token_expires(way, role, kept):
    client = opened(way, role)
    kept.wait_until_expired()
    deadline, started = time.time() + 60, 0
    while started < kept.expires:
        assert time.time() < deadline, "no new connection in a minute"
        try:
            user, started = client.login()
        except Exception as error:
            # azure-identity returns a cached token up to its last moment, so it can expire on its way to the server.
            if "The access token has expired" not in str(error):
                raise
            continue
        assert user == role


class Fixed:
    """A credential that has one token."""

    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **options):
        return AccessToken(self.token, 2**40)


class AsyncFixed(Fixed):
    async def get_token(self, *scopes, **options):
        return super().get_token()

    async def close(self):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass


def rejection(way, role, token=None):
    """Returns what the driver reports when a way logs in as a role with a token, or else as the managed identity."""
    client = way(Fixed(token), AsyncFixed(token), user=role) if token else way.as_identity("shop-api", user=role)
    try:
        with pytest.raises(Exception) as raised:
            client.login()
        return str(raised.value)
    finally:
        client.close()


def management_token():
    return CREDENTIALS["shop-api"][0]().get_token("https://management.azure.com/.default").token


# psycopg_pool retries in the background and reports only a timeout.
silent = PsycopgPool, AsyncPsycopgPool
drivers = pytest.mark.parametrize("way", [way for way in DRIVERS if way not in silent])


@drivers
@pytest.mark.parametrize(
    ("token", "message"),
    [
        (lambda kept: kept.token, "The access token has expired. Acquire a new token and try again."),
        (lambda kept: kept.token[:-40] + 40 * "A", "An error occurred while validating the access token"),
        (lambda kept: kept.token[:400], "The access token has invalid format"),
        (lambda kept: "a password", "An error occurred while validating the access token"),
        (lambda kept: management_token(), "The access token does not have a valid audience claim"),
    ],
    ids=["expired", "forged", "cut", "password", "for another resource"],
)
def test_is_rejected_with_a_token_that_is(way, token, message, expired):
    assert message in rejection(way, "shop-api", token(expired))


@pytest.mark.parametrize("way", [way for way in MICROSOFT + DRIVERS if "PsycopgPool" not in way.__name__])
def test_is_rejected_as_another_role(way):
    assert 'Service principal oid mismatch for role "reporting"' in rejection(way, "reporting")


@drivers
def test_is_rejected_without_a_role(way):
    assert 'password authentication failed for user "stranger"' in rejection(way, "stranger")


class Watch:
    """Another connection, which sees the queries of the others."""

    def __init__(self):
        self.connection = TokenConnection.connect(credential=CREDENTIALS["shop-api"][0](), user="shop-api", autocommit=True)

    def active(self, pid):
        query = "select state = 'active' and query ~ 'pg_sleep' from pg_stat_activity where pid = %s"
        return self.connection.execute(query, [pid]).fetchone() == (True,)

    def wait(self, pid, active):
        deadline = time.time() + 60
        while self.active(pid) != active:
            assert time.time() < deadline
            time.sleep(0.05)


@pytest.fixture
def watch():
    watch = Watch()
    with watch.connection:
        yield watch


@pytest.mark.parametrize("cancel", ["cancel", "cancel_safe"])  # in plaintext, and over TLS
def test_psycopg_cancels(cancel, watch):
    with MicrosoftPsycopg.as_identity("shop-api").connect() as connection:
        pid = connection.info.backend_pid

        def when_active():
            watch.wait(pid, True)
            getattr(connection, cancel)()

        with ThreadPoolExecutor() as threads:
            canceled = threads.submit(when_active)
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("select pg_sleep(300)")
            canceled.result()


def test_asyncpg_cancels(watch):
    async def cancel():
        async with way.pool.acquire() as connection:
            pid = connection.get_server_pid()
            query = asyncio.ensure_future(connection.execute("select pg_sleep(300)"))
            await asyncio.to_thread(watch.wait, pid, True)
            query.cancel()
            with pytest.raises(asyncio.CancelledError):
                await query
            await asyncio.to_thread(watch.wait, pid, False)

    way = AsyncpgPool.as_identity("shop-api", user="shop-api")
    loop.run(cancel())
    way.close()


@pytest.mark.parametrize("way", [MicrosoftPsycopg, MicrosoftPsycopg2, MicrosoftSQLAlchemy])
def test_microsoft_cannot_name_a_service_principal(way):
    """Its tokens have none of the claims that azure-postgresql-auth 1.1.0 reads, and it does so even if the user is set."""
    client = way.as_identity("reporting", user="reporting")
    try:
        with pytest.raises(EntraConnectionValueError) as raised:
            client.login()
        assert "Could not determine username" in str(raised.value.__cause__)
    finally:
        client.close()


@pytest.mark.parametrize("credential", [DefaultAzureCredential, EnvironmentCredential])
def test_environment_credential_logs_in(credential, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_ID", TENANT["client_id"])
    monkeypatch.setenv("AZURE_CLIENT_SECRET", TENANT["client_secret"])
    user, _ = Psycopg2(credential(disable_instance_discovery=True), None, user="reporting").login()
    assert user == "reporting"


def test_default_credential_logs_in_as_a_managed_identity(monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_ID", os.environ["SHOP_API_CLIENT_ID"])
    user, _ = MicrosoftPsycopg(DefaultAzureCredential(), None).login()
    assert user == "shop-api"
