// node-postgres and Sequelize log in to the emulator as managed identities, by
// Microsoft's own libraries, and are refused when they should be.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { ManagedIdentityCredential } from "@azure/identity";
import { configureEntraAuthentication, entraTokenProvider } from "@azure/postgresql-auth";
import pg from "pg";
import { Sequelize } from "sequelize";

const entrapg = process.env.ENTRAPG ?? "../../bin/entrapg";
const ids = {}; // client IDs by name
let emulator, server;

before(async () => {
  const identities = ["shop-api", "stranger"].flatMap((name) => ["--identity", name]);
  const anyPort = ["--addr", "--tenant-addr", "--identity-addr"].flatMap((flag) => [flag, "127.0.0.1:0"]);
  emulator = spawn(entrapg, ["emulator", "--no-roles", ...identities, ...anyPort], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  await new Promise((resolve, reject) => {
    emulator.stdout.on("data", (data) => (said += data).includes("Logins:") && resolve());
    emulator.on("error", reject).on("exit", (code) => reject(new Error(`the emulator ended with ${code}`)));
  });
  for (const [, name, id] of said.matchAll(/^ {2}(\S+) +user-assigned[^\n]*\n +AZURE_CLIENT_ID=(\S+)/gm)) ids[name] = id;
  for (const [, name, value] of said.matchAll(/^export (IDENTITY_\w+|DATABASE_URL)='?([^'\n]+)/gm)) process.env[name] = value;
  const url = new URL(process.env.DATABASE_URL);
  server = { host: url.hostname, port: Number(url.port), database: "postgres", ssl: { ca: readFileSync(url.searchParams.get("sslrootcert")) } };

  // Roles come to be as on Azure.
  const admin = client("db-admin", "db-admin");
  await admin.connect();
  await admin.query("select * from pgaadauth_create_principal('shop-api', false, false)");
  // Microsoft's library takes the client ID of a managed identity for its role's name.
  const { token } = await credential("shop-api").getToken("https://ossrdbms-aad.database.windows.net/.default");
  const { oid } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
  await admin.query("select * from pgaadauth_create_principal_with_oid($1, $2, 'service', false, false)", [ids["shop-api"], oid]);
  await admin.end();
});

after(() => new Promise((resolve) => {
  emulator.removeAllListeners("exit").on("exit", resolve);
  emulator.kill("SIGTERM");
}));

const credential = (name) => new ManagedIdentityCredential({ clientId: ids[name] });
const client = (user, identity) => new pg.Client({ ...server, user, password: entraTokenProvider(credential(identity)) });

function sequelize(identity) {
  const { host, port, database, ssl } = server;
  const orm = new Sequelize({ dialect: "postgres", host, port, database, dialectOptions: { ssl }, logging: false, retry: { max: 1 } });
  configureEntraAuthentication(orm, credential(identity));
  return orm;
}

test("node-postgres logs in as a managed identity", async () => {
  const c = client("shop-api", "shop-api");
  await c.connect();
  const { rows } = await c.query("select session_user::text");
  assert.equal(rows[0].session_user, "shop-api");
  await c.end();
});

test("node-postgres is refused as somebody else", async () => {
  await assert.rejects(client("shop-api", "stranger").connect(), { code: "28000", message: /^Service principal oid mismatch for role "shop-api"/ });
});

test("node-postgres is refused without a role", async () => {
  await assert.rejects(client("stranger", "stranger").connect(), { code: "28P01" });
});

test("Sequelize logs in as a managed identity, whose client ID is its role", async () => {
  const orm = sequelize("shop-api");
  const [rows] = await orm.query("select session_user::text");
  assert.equal(rows[0].session_user, ids["shop-api"]);
  await orm.close();
});

test("Sequelize is refused without a role", async () => {
  const orm = sequelize("stranger");
  await assert.rejects(orm.authenticate(), { message: `password authentication failed for user "${ids.stranger}"` });
  await orm.close();
});
