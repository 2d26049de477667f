/** Certificates and tokens, against a real broker with TLS; a Unix socket. */

import assert from "node:assert/strict";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Client, StateError, TlsError, Unavailable } from "../src/index.js";
import { Broker, run } from "./farm.js";

/** An authority, the certificate of the server, and one of a caller. */
function pki(folder: string): void {
  mkdirSync(join(folder, "mine"), { recursive: true });
  run("pki", "init", "--domain", "farm.example.org", join(folder, "ca"));
  run("pki", "server", "--name", "127.0.0.1", "--out", folder, join(folder, "ca"));
  run("pki", "client", "--uri", "spiffe://farm.example.org/agents/a", "--out", join(folder, "mine"), join(folder, "ca"));
}

/** A token of one id, with its hash. */
function newToken(): { token: string; sha256: string } {
  const said = run("token", "new", "--expires", "never", "t1");
  const [token, sha256] = [/wfk_t1_\w+/.exec(said)?.[0], /sha256 = "(\w+)"/.exec(said)?.[1]];
  assert(token !== undefined && sha256 !== undefined, said);
  return { token, sha256 };
}

test("agents lease by a certificate or a token file, and strangers do not", async () => {
  const [first, second] = [newToken(), newToken()];
  await using broker = await Broker.start({
    prepare: (folder) => {
      pki(folder);
      return `
[server.tls]
certificate = "FOLDER/127.0.0.1.pem"
key = "FOLDER/127.0.0.1.key"
client_ca = "FOLDER/ca/ca.pem"
client_auth = "optional"
[[auth.certificate]]
uri = "spiffe://farm.example.org/agents/"
tenant = "default"
roles = ["agent"]
[[auth.token]]
id = "t1"
sha256 = ["${first.sha256}", "${second.sha256}"]
tenant = "default"
roles = ["agent"]
expires = "never"
`;
    },
  });
  const server = `https://${broker.address}`;
  const mine = join(broker.folder, "mine");
  const certificate = join(mine, readdirSync(mine).find((name) => name.endsWith(".pem")) ?? "none");
  const environment = { WHARFINGER_SERVER: server, WHARFINGER_CA_FILE: join(broker.folder, "ca/ca.pem") };
  {
    const more = { WHARFINGER_CERTIFICATE: certificate, WHARFINGER_CERTIFICATE_KEY: certificate.replace(/pem$/, "key") };
    await using client = new Client({ environment: { ...environment, ...more } });
    await client.withLease({ pool: "here" }, (lease) => assert.match(lease.message.principal, /spiffe:\/\/farm.example.org\/agents\/a/));
  }
  const file = join(broker.folder, "token");
  writeFileSync(file, first.token);
  {
    await using client = new Client({ environment: { ...environment, WHARFINGER_AUTH_TOKEN_FILE: file } });
    await client.withLease({ pool: "here" }, async (lease) => {
      assert.equal(lease.message.principal, "token:t1");
      // It is replaced while the lease lives.
      writeFileSync(file, second.token);
      assert.equal((await client.renew(lease.id)).id, lease.id);
      assert(!JSON.stringify(lease.env()).includes("wfk_"));
    });
  }
  {
    await using nobody = new Client({ environment, retryForMs: 0 });
    await assert.rejects(nobody.lease({ pool: "here" }), (error) => error instanceof StateError && error.reason === "NO_CREDENTIALS" && error.isUnauthenticated);
  }
  {
    // A server that Node's authorities do not know.
    await using stranger = new Client({ environment: { WHARFINGER_SERVER: server }, retryForMs: 0 });
    await assert.rejects(stranger.server(), Unavailable);
  }
  {
    // A server whose certificate has another name.
    await using other = new Client({ environment: { ...environment, WHARFINGER_SERVER: server.replace("127.0.0.1", "127.0.0.2") }, retryForMs: 0 });
    await assert.rejects(other.server(), Unavailable);
  }
  const missing = { ...environment, WHARFINGER_CA_FILE: join(broker.folder, "nothing.pem") };
  assert.throws(() => new Client({ environment: missing }), (error) => error instanceof TlsError && /nothing\.pem cannot be read/.test(error.message));
  writeFileSync(join(broker.folder, "bad.pem"), "-----BEGIN CERTIFICATE-----\nbad\n-----END CERTIFICATE-----\n");
  const bad = { ...environment, WHARFINGER_CERTIFICATE: join(broker.folder, "bad.pem"), WHARFINGER_CERTIFICATE_KEY: certificate.replace(/pem$/, "key") };
  assert.throws(() => new Client({ environment: bad }), TlsError);
});

test("a server is reached by its Unix socket", async () => {
  await using broker = await Broker.start({ server: 'listen_unix = "FOLDER/w.sock"' });
  await using client = new Client(`unix://${broker.folder}/w.sock`);
  await client.withLease({ pool: "here" }, (lease) => assert.equal(lease.status, "active"));
});
