/** The tables of behaviours that all clients pass, and what a scripted server shows. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";
import { create } from "@bufbuild/protobuf";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { parseAddresses } from "../src/address.js";
import { errorOf } from "../src/errors.js";
import * as wharfinger from "../src/index.js";
import { statusOf } from "../src/keeper.js";
import { DoubtSchema, LeaseSchema } from "../src/v1.js";
import type { LeaseState } from "../src/v1.js";
import type { Follow } from "../src/way.js";
import { Broker, cases, Scripted } from "./farm.js";

interface AddressCase {
  text: string;
  servers: { authority: string; private: boolean; here: boolean }[] | null;
}

test("addresses", () => {
  for (const { text, servers } of cases<AddressCase>("addresses")) {
    if (servers === null) {
      assert.throws(() => parseAddresses(text), { name: "AddressError", message: /several with commas between/ }, text);
    } else {
      const found = parseAddresses(text).map((a) => ({ authority: a.authority, private: a.isPrivate, here: a.isHere }));
      assert.deepEqual(found, servers, text);
    }
  }
});

test("errors", () => {
  const kinds: Record<string, unknown> = {
    request: wharfinger.RequestError,
    not_found: wharfinger.NotFound,
    state: wharfinger.StateError,
    capacity: wharfinger.CapacityError,
    resync: wharfinger.Resync,
    unavailable: wharfinger.Unavailable,
    bug: wharfinger.Bug,
  };
  for (const { number, acts, code } of cases<{ number: number; acts: string; code: string }>("errors")) {
    assert.equal(errorOf(number as Code, "x").constructor, kinds[acts], code);
    assert.equal((Code[number] ?? "").toUpperCase(), code.replaceAll("_", "").replace("CANCELLED", "CANCELED"));
  }
});

test("leases", () => {
  for (const { state, has, status } of cases<{ state: number; has: string[]; status: string }>("lease")) {
    const lease = create(LeaseSchema, { state: state as LeaseState });
    for (const field of has) {
      if (field === "doubt") lease.doubt = create(DoubtSchema);
      else if (field === "active_at") lease.activeAt = create(TimestampSchema);
      else if (field === "ended_at") lease.endedAt = create(TimestampSchema);
      else if (field === "ends_at") lease.endsAt = create(TimestampSchema);
      else assert.fail(field);
    }
    assert.equal(statusOf(lease), status, JSON.stringify({ state, has }));
  }
});

interface WayCase {
  name: string;
  servers: unknown[];
  listed: number[];
  follow: Follow;
  calls: (number | string)[];
}

for (const wanted of cases<WayCase>("way")) {
  test(`way: ${wanted.name}`, async () => {
    await using servers = await Scripted.start(wanted.servers);
    const server = wanted.listed.map((at) => `127.0.0.1:${servers.ports[at]}`).join(",");
    await using client = new wharfinger.Client({ server, follow: wanted.follow, retryForMs: 0 });
    const found: (number | string)[] = [];
    for (const _ of wanted.calls) {
      try {
        found.push((await client.get("l")).slot);
      } catch (error) {
        assert(error instanceof wharfinger.Unavailable, inspect(error));
        found.push(error.reason ?? "UNREACHED");
      }
    }
    assert.deepEqual(found, wanted.calls);
  });
}

test("a thousand leases of one client are renewed, and all hear of their breaks", async () => {
  await using servers = await Scripted.start([{ does: "leads" }]);
  await using client = new wharfinger.Client(`127.0.0.1:${servers.ports[0]}`);
  const delays = await Promise.all(
    Array.from({ length: 1000 }, async () => {
      const lease = await client.lease({ pool: "here", ttlMs: 12_000, tags: { after: "20" } });
      const lost = await new Promise<unknown>((resolve) => lease.signal.addEventListener("abort", () => resolve(lease.signal.reason)));
      assert(lost instanceof wharfinger.LeaseBroken, inspect(lost));
      assert(Number(lease.message.tags["renewals"]) >= 1);
      return Date.now() / 1000 - Number((lost.causes[0]?.detail ?? "").replace("at ", ""));
    }),
  );
  delays.sort((a, b) => a - b);
  // On an idle machine some 50 ms.
  assert((delays[500] ?? Infinity) < 1, JSON.stringify(delays.slice(-10)));
});

test("a token goes to this machine alone without TLS, and nothing prints it", async () => {
  const credentials = new wharfinger.TokenText("wfk_a_b_c");
  await using client = new wharfinger.Client({ server: "192.0.2.1:1", credentials, retryForMs: 0 });
  await assert.rejects(client.get("l"), { name: "CredentialsError", message: /is not sent to 192\.0\.2\.1:1/ });
  const printed = [inspect(client, { depth: 9 }), JSON.stringify(client.settings), inspect(await credentials.token()), String(await credentials.token())];
  for (const text of printed) assert(!text.includes("wfk_a"), text);
});

test("settings come from the environment of the command line", async () => {
  await using broker = await Broker.start();
  const file = join(broker.folder, "token");
  writeFileSync(file, "first\n");
  const found = wharfinger.settingsOf({
    environment: {
      WHARFINGER_SERVER: "https://b:1",
      WHARFINGER_HOLDER: "me",
      WHARFINGER_CA_FILE: "/ca.pem",
      WHARFINGER_FOLLOW_LEADER: "same-hosts",
      WHARFINGER_AUTH_TOKEN_FILE: file,
      WHARFINGER_AUTH_TOKEN: "second",
    },
  });
  assert.deepEqual([found.server, found.holder, found.caFile, found.follow], ["https://b:1", "me", "/ca.pem", "same-hosts"]);
  assert.equal((await found.credentials?.token())?.header, "Bearer first");
  writeFileSync(file, "a changed one is read again");
  await assert.rejects(found.credentials?.token() ?? Promise.resolve(), { name: "CredentialsError", message: /holds no token/ });
  const command = wharfinger.settingsOf({ environment: { WHARFINGER_AUTH_TOKEN_COMMAND: '["printf", "%s", "a.b"]' } });
  assert.equal((await command.credentials?.token())?.header, "Bearer a.b");
  const failing = wharfinger.settingsOf({ environment: { WHARFINGER_AUTH_TOKEN_COMMAND: "false" } });
  await assert.rejects(failing.credentials?.token() ?? Promise.resolve(), { name: "CredentialsError", message: /failed: 1/ });
  for (const [environment, name] of [
    [{ WHARFINGER_SERVER_URI: "spiffe://a/b" }, "TlsError"],
    [{ WHARFINGER_CERTIFICATE: "/c.pem" }, "TlsError"],
    [{ WHARFINGER_FOLLOW_LEADER: "all" }, "AddressError"],
    [{ WHARFINGER_AUTH_TOKEN: "a b" }, "CredentialsError"],
    [{ WHARFINGER_OIDC: "jenkins" }, "CredentialsError"],
    [{ WHARFINGER_OIDC: "gitlab" }, "CredentialsError"],
  ] as const) {
    assert.throws(() => wharfinger.settingsOf({ environment }), { name }, JSON.stringify(environment));
  }
});

test("a value that its message has no place for is refused here", async () => {
  await using client = new wharfinger.Client({ server: "127.0.0.1:1", retryForMs: 0 });
  await assert.rejects(client.lease({ pool: "here", priority: 1.5 }), { name: "RequestError" });
  assert.equal(create(DurationSchema).nanos, 0);
});
