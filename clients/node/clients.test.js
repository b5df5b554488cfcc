// node-postgres and Sequelize log in to the emulator with Microsoft's libraries before and after a token expires, and are rejected
// with invalid tokens.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { ClientSecretCredential, ManagedIdentityCredential } from "@azure/identity";
import { configureEntraAuthentication, entraTokenProvider } from "@azure/postgresql-auth";
import pg from "pg";
import { Sequelize } from "sequelize";

const { env } = process;
const scope = "https://ossrdbms-aad.database.windows.net/.default";
const server = { host: env.PGHOST, port: Number(env.PGPORT), database: "postgres", ssl: { ca: readFileSync(env.PGSSLROOTCERT) } };
const managed = (clientId) => new ManagedIdentityCredential({ clientId });
const credentials = {
  "shop-api": () => managed(env.SHOP_API_CLIENT_ID),
  "db-admin": () => managed(env.DB_ADMIN_CLIENT_ID),
  reporting: () =>
    new ClientSecretCredential(env.AZURE_TENANT_ID, env.REPORTING_CLIENT_ID, env.REPORTING_CLIENT_SECRET, {
      authorityHost: env.AZURE_AUTHORITY_HOST,
      disableInstanceDiscovery: true, // only Microsoft's own authorities are known to it
    }),
};
// Microsoft's library for Sequelize uses the client ID of a service as the name of its role.
const clientIds = { "shop-api": env.SHOP_API_CLIENT_ID, reporting: env.REPORTING_CLIENT_ID };

const query = "select session_user::text as user, extract(epoch from backend_start)::float8 as started from pg_stat_activity where pid = pg_backend_pid()";
const password = (identity) => entraTokenProvider(credentials[identity]());

let kept; // a token that was requested at the start

before(async () => {
  kept = await credentials["shop-api"]().getToken(scope);
  const admin = new pg.Client({ ...server, user: "db-admin", password: password("db-admin") });
  await admin.connect();
  for (const identity of Object.keys(clientIds)) {
    const { token } = await credentials[identity]().getToken(scope);
    const { oid } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
    await admin.query("select * from pgaadauth_create_principal_with_oid($1, $2, 'service', false, false)", [clientIds[identity], oid]);
  }
  await admin.end();
});

// The ways to log in as an identity. Each returns how to query with a connection of its pool, and how to close it.
const ways = {
  "node-postgres": (identity, user = identity, token = password(identity)) => {
    const pool = new pg.Pool({ ...server, user, password: token, max: 1, idleTimeoutMillis: 1 });
    return { login: async () => (await pool.query(query)).rows[0], close: () => pool.end() };
  },
  Sequelize: (identity) => {
    const { host, port, database, ssl } = server;
    const orm = new Sequelize({ dialect: "postgres", host, port, database, dialectOptions: { ssl }, logging: false, retry: { max: 1 }, pool: { max: 1, idle: 1, evict: 1 } });
    configureEntraAuthentication(orm, credentials[identity]());
    return { login: async () => (await orm.query(query))[0][0], close: () => orm.close() };
  },
};

async function isRejected({ login, close }, error) {
  try {
    await assert.rejects(login, error);
  } finally {
    await close(); // else the process does not end
  }
}

// The tests of one way and identity wait for the same token, all at the same time.
test("logs in before and after its token expires", { concurrency: true }, async (t) => {
  await Promise.all(
    Object.keys(ways).flatMap((way) =>
      Object.keys(clientIds).map((identity) =>
        t.test(`${way} as ${identity}`, async () => {
          const role = way === "Sequelize" ? clientIds[identity] : identity;
          const { login, close } = ways[way](identity);
          try {
            assert.equal((await login()).user, role);
            await sleep(Math.max(0, kept.expiresOnTimestamp + 1000 - Date.now()));
            const deadline = Date.now() + 60_000;
            for (let started = 0; started * 1000 <= kept.expiresOnTimestamp; ) {
              assert.ok(Date.now() < deadline, "no new connection in a minute");
              try {
                const session = await login();
                assert.equal(session.user, role);
                started = session.started;
              } catch (error) {
                // Microsoft's libraries return a cached token up to its last moment, so it can expire on its way to the server.
                if (!error.message.includes("The access token has expired")) throw error;
              }
            }
          } finally {
            await close();
          }
        }),
      ),
    ),
  );
});

test("node-postgres is rejected with a token that is", async (t) => {
  const management = await credentials["shop-api"]().getToken("https://management.azure.com/.default");
  const cases = {
    expired: [kept.token, /The access token has expired. Acquire a new token and try again./],
    forged: [kept.token.slice(0, -40) + "A".repeat(40), /An error occurred while validating the access token/],
    cut: [kept.token.slice(0, 400), /The access token has invalid format/],
    "a password": ["password", /An error occurred while validating the access token/],
    "for another resource": [management.token, /The access token does not have a valid audience claim/],
  };
  for (const [name, [token, message]] of Object.entries(cases)) {
    await t.test(name, async () => {
      await isRejected(ways["node-postgres"]("shop-api", "shop-api", token), { message });
    });
  }
});

test("node-postgres is rejected as another role", async () => {
  const message = /^Service principal oid mismatch for role "reporting"/;
  await isRejected(ways["node-postgres"]("shop-api", "reporting"), { code: "28000", message });
});

test("node-postgres is rejected without a role", async () => {
  await isRejected(ways["node-postgres"]("shop-api", "stranger"), { code: "28P01" });
});

test("Sequelize is rejected without a role", async () => {
  const message = `password authentication failed for user "${env.DB_ADMIN_CLIENT_ID}"`;
  await isRejected(ways.Sequelize("db-admin"), { message });
});
