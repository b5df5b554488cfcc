// node-postgres and Sequelize log in through the proxy without Microsoft's libraries, before and after a token expires.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import pg from "pg";
import { Sequelize } from "sequelize";

const { env } = process;
const life = Number(env.TOKEN_LIFE) * 1000;

test("through the proxy", { concurrency: true }, async (t) => {
  await Promise.all([
    t.test("node-postgres outlives tokens", async () => {
      const pool = new pg.Pool({ max: 1, idleTimeoutMillis: 0 });
      const { rows } = await pool.query("select session_user::text as user, pg_backend_pid() as pid");
      assert.equal(rows[0].user, "shop-api");
      await sleep(life + 1000);
      const later = (await pool.query("select pg_backend_pid() as pid")).rows[0];
      assert.equal(later.pid, rows[0].pid, "the open connection is used");
      const fresh = new pg.Client();
      await fresh.connect();
      assert.equal((await fresh.query("select session_user::text as user")).rows[0].user, "shop-api");
      await fresh.end();
      await pool.end();
    }),
    t.test("node-postgres is rejected without the password", async () => {
      await assert.rejects(new pg.Client({ password: "wrong" }).connect(), { code: "28P01" });
    }),
    t.test("node-postgres gets notifications and cancels", async () => {
      const client = new pg.Client({ query_timeout: 60000 });
      await client.connect();
      const notified = new Promise((resolve) => client.on("notification", resolve));
      await client.query("listen news");
      await client.query("notify news, 'from the proxy'");
      assert.equal((await notified).payload, "from the proxy");
      await client.query("set statement_timeout = '100ms'");
      await assert.rejects(client.query("select pg_sleep(60)"), { code: "57014" });
      await client.end();
    }),
    t.test("Sequelize logs in", async () => {
      const orm = new Sequelize({
        dialect: "postgres", host: env.PGHOST, port: Number(env.PGPORT), database: "postgres", username: env.PGUSER, password: env.PGPASSWORD, logging: false,
      });
      const [rows] = await orm.query("select session_user::text as user");
      assert.equal(rows[0].user, "shop-api");
      await orm.close();
    }),
  ]);
});
