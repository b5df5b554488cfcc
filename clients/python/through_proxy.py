"""psycopg 3, psycopg2, asyncpg and SQLAlchemy log in through the proxy without Microsoft's libraries."""

import asyncio
import os
import threading
import time

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy

LIFE = int(os.environ["TOKEN_LIFE"])


def test_psycopg_outlives_tokens():
    with psycopg.connect("", autocommit=True) as kept:
        assert kept.execute("select session_user").fetchone() == ("shop-api",)
        time.sleep(LIFE + 1)
        assert kept.execute("select session_user").fetchone() == ("shop-api",)
        with psycopg.connect("") as fresh:
            assert fresh.execute("select session_user").fetchone() == ("shop-api",)


def cancel_when_it_sleeps(conn, pid):
    with psycopg.connect("", autocommit=True) as watch:
        query = "select count(*) from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
        while watch.execute(query, [pid]).fetchone() == (0,):
            time.sleep(0.01)
    conn.cancel_safe()


def test_psycopg_pipelines_copies_and_cancels():
    with psycopg.connect("", autocommit=True) as conn:
        with conn.pipeline():
            cursors = [conn.execute("select %s::int", (n,)) for n in range(100)]
        assert [c.fetchone()[0] for c in cursors] == list(range(100))
        conn.execute("create temporary table copied (n int)")
        with conn.cursor().copy("copy copied from stdin") as copy:
            for n in range(10_000):
                copy.write_row((n,))
        assert conn.execute("select count(*) from copied").fetchone() == (10_000,)
        pid = conn.execute("select pg_backend_pid()").fetchone()[0]
        canceler = threading.Thread(target=cancel_when_it_sleeps, args=[conn, pid])
        canceler.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("select pg_sleep(300)")
        canceler.join()
        assert conn.execute("select 1").fetchone() == (1,)


def test_psycopg_is_rejected_without_the_password():
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect("password=wrong")


def test_psycopg2_logs_in():
    with psycopg2.connect("") as conn, conn.cursor() as cursor:
        cursor.execute("select session_user")
        assert cursor.fetchone() == ("shop-api",)


def test_asyncpg_logs_in():
    async def login():
        conn = await asyncpg.connect()
        try:
            return await conn.fetchval("select session_user::text")
        finally:
            await conn.close()

    assert asyncio.run(login()) == "shop-api"


def test_sqlalchemy_logs_in():
    with sqlalchemy.create_engine("postgresql+psycopg://").connect() as conn:
        assert conn.scalar(sqlalchemy.text("select session_user")) == "shop-api"
