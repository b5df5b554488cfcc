"""The ways to log in.

Each is a class. login() opens a connection, or lets its pool open one, and returns the session's user and the time at which the
server started the session, in seconds since 1970. Settings that are missing come from libpq's environment variables.
"""

import asyncio

import asyncpg
import psycopg
import psycopg2
import psycopg2.pool
import psycopg_pool
import sqlalchemy
import sqlalchemy.ext.asyncio
from azure_postgresql_auth import psycopg2 as microsoft2
from azure_postgresql_auth import psycopg3 as microsoft3
from azure_postgresql_auth import sqlalchemy as microsoft_sqlalchemy

from conftest import CREDENTIALS, SCOPE

QUERY = "select session_user::text, extract(epoch from backend_start)::float8 from pg_stat_activity where pid = pg_backend_pid()"

loop = asyncio.Runner()  # shared by all asynchronous ways


class Way:
    """A way to log in. If settings contain a user, it is not derived from the token."""

    def __init__(self, credential, async_credential, **settings):
        self.credential, self.async_credential, self.settings = credential, async_credential, settings
        self.open()

    @classmethod
    def as_identity(cls, name, **settings):
        blocking, asynchronous = CREDENTIALS[name]
        return cls(blocking(), asynchronous(), **settings)

    def open(self):
        pass

    def close(self):
        pass


class AsyncWay(Way):
    def login(self):
        return loop.run(self.login_async())

    def close(self):
        async def close():
            await self.close_async()
            if hasattr(self.async_credential, "close"):
                await self.async_credential.close()

        loop.run(close())

    async def close_async(self):
        pass


# azure-postgresql-auth, which derives the user from the token


class MicrosoftPsycopg(Way):
    def connect(self):
        return microsoft3.EntraConnection.connect(credential=self.credential, **self.settings)

    def login(self):
        with self.connect() as connection:
            return connection.execute(QUERY).fetchone()


class MicrosoftPsycopgPool(Way):
    connection_class = microsoft3.EntraConnection

    def open(self):
        self.pool = psycopg_pool.ConnectionPool(
            connection_class=self.connection_class, kwargs=dict(credential=self.credential, **self.settings), min_size=1, open=True
        )

    def login(self):
        with self.pool.connection(timeout=30) as connection:
            row = connection.execute(QUERY).fetchone()
            connection.close()  # the pool replaces it
            return row

    def close(self):
        self.pool.close()


class MicrosoftAsyncPsycopgPool(AsyncWay):
    connection_class = microsoft3.AsyncEntraConnection

    def open(self):
        async def open():
            self.pool = psycopg_pool.AsyncConnectionPool(
                connection_class=self.connection_class,
                kwargs=dict(credential=self.async_credential, **self.settings),
                min_size=1,
                open=False,
            )
            await self.pool.open()

        loop.run(open())

    async def login_async(self):
        async with self.pool.connection(timeout=30) as connection:
            row = await (await connection.execute(QUERY)).fetchone()
            await connection.close()
            return row

    async def close_async(self):
        await self.pool.close()


class MicrosoftPsycopg2(Way):
    connection_class = microsoft2.EntraConnection

    def connect(self):
        return psycopg2.connect("", connection_factory=self.connection_factory, **self.settings)

    def connection_factory(self, dsn, **more):
        return self.connection_class(dsn, credential=self.credential, **more)

    def login(self):
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(QUERY)
                return cursor.fetchone()
        finally:
            connection.close()


class MicrosoftPsycopg2Pool(MicrosoftPsycopg2):
    def open(self):
        self.pool = psycopg2.pool.ThreadedConnectionPool(0, 2, "", connection_factory=self.connection_factory, **self.settings)

    def connect(self):
        return self.pool.getconn()

    def close(self):
        self.pool.closeall()


class MicrosoftSQLAlchemy(Way):
    url = "postgresql+psycopg://"

    def open(self):
        self.engine = sqlalchemy.create_engine(self.url, connect_args=dict(credential=self.credential, **self.settings))
        microsoft_sqlalchemy.enable_entra_authentication(self.engine)

    def login(self):
        with self.engine.connect() as connection:
            row = connection.exec_driver_sql(QUERY).one()
            connection.invalidate()
            return row

    def close(self):
        self.engine.dispose()


class MicrosoftSQLAlchemyPsycopg2(MicrosoftSQLAlchemy):
    url = "postgresql+psycopg2://"


class MicrosoftAsyncSQLAlchemy(AsyncWay):
    def open(self):
        self.engine = sqlalchemy.ext.asyncio.create_async_engine(
            "postgresql+psycopg://", connect_args=dict(credential=self.credential, **self.settings)
        )
        microsoft_sqlalchemy.enable_entra_authentication_async(self.engine)

    async def login_async(self):
        async with self.engine.connect() as connection:
            row = (await connection.exec_driver_sql(QUERY)).one()
            await connection.invalidate()
            return row

    async def close_async(self):
        await self.engine.dispose()


class MicrosoftAsyncpgSQLAlchemy(MicrosoftAsyncSQLAlchemy):
    def open(self):
        self.engine = microsoft_sqlalchemy.create_asyncpg_engine(
            "postgresql+asyncpg://", credential=self.async_credential, connect_args=self.settings
        )


MICROSOFT = [
    MicrosoftPsycopg,
    MicrosoftPsycopgPool,
    MicrosoftAsyncPsycopgPool,
    MicrosoftPsycopg2,
    MicrosoftPsycopg2Pool,
    MicrosoftSQLAlchemy,
    MicrosoftSQLAlchemyPsycopg2,
    MicrosoftAsyncSQLAlchemy,
    MicrosoftAsyncpgSQLAlchemy,
]


# A driver alone, with the token of an azure-identity credential as its password


class TokenConnection(psycopg.Connection):
    @classmethod
    def connect(cls, conninfo="", *, credential, **settings):
        return super().connect(conninfo, password=credential.get_token(SCOPE).token, **settings)


class AsyncTokenConnection(psycopg.AsyncConnection):
    @classmethod
    async def connect(cls, conninfo="", *, credential, **settings):
        token = await credential.get_token(SCOPE)
        return await super().connect(conninfo, password=token.token, **settings)


class PsycopgPool(MicrosoftPsycopgPool):
    connection_class = TokenConnection


class AsyncPsycopgPool(MicrosoftAsyncPsycopgPool):
    connection_class = AsyncTokenConnection


class Psycopg2(MicrosoftPsycopg2):
    def connect(self):
        return psycopg2.connect("", password=self.credential.get_token(SCOPE).token, **self.settings)


class SQLAlchemy(MicrosoftSQLAlchemy):
    def open(self):
        self.engine = sqlalchemy.create_engine(self.url, connect_args=self.settings)

        @sqlalchemy.event.listens_for(self.engine, "do_connect")
        def provide_token(dialect, record, args, settings):
            settings["password"] = self.credential.get_token(SCOPE).token


class AsyncSQLAlchemy(MicrosoftAsyncSQLAlchemy):
    def open(self):
        async def connect():
            token = await self.async_credential.get_token(SCOPE)
            return await psycopg.AsyncConnection.connect(password=token.token, **self.settings)

        self.engine = sqlalchemy.ext.asyncio.create_async_engine("postgresql+psycopg://", async_creator=connect)


class AsyncpgPool(AsyncWay):
    def open(self):
        async def password():
            return (await self.async_credential.get_token(SCOPE)).token

        async def open():
            self.pool = await asyncpg.create_pool(password=password, min_size=0, **self.settings)

        loop.run(open())

    async def login_async(self):
        async with self.pool.acquire() as connection:
            row = await connection.fetchrow(QUERY)
            await connection.close()
            return row

    async def close_async(self):
        await self.pool.close()


DRIVERS = [PsycopgPool, AsyncPsycopgPool, Psycopg2, SQLAlchemy, AsyncSQLAlchemy, AsyncpgPool]
