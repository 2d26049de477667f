/** A lease of a real broker. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { inspect } from "node:util";
import { Client, LeaseBroken, StateError, Unavailable, type CapacityError, type CallError, type Lease } from "../src/index.js";
import { Finding_Fault, Outcome } from "../src/v1.js";
import { Broker, PROGRAM, until } from "./farm.js";

/** Waits until the signal fires. */
function fired(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    else signal.addEventListener("abort", () => resolve(signal.reason), { once: true });
  });
}

/** Work that ends with its signal alone. */
async function endless(lease: Lease): Promise<never> {
  throw await fired(lease.signal);
}

/** The error of a promise that is rejected. */
async function thrown(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  return assert.fail("nothing was thrown");
}

async function outcome(client: Client, id: string): Promise<Outcome> {
  return (await client.get(id)).outcome;
}

test("a whole life", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  let kept: Lease | undefined;
  const value = await client.withLease({ pool: "here", work: "unit@1", holder: "me", ttlMs: 60_000, tags: { a: "b" } }, async (lease) => {
    kept = lease;
    assert.equal(lease.status, "active");
    assert(lease.token > 0n);
    assert.equal(lease.env()["WHARFINGER_TOKEN"], String(lease.token));
    assert.equal(lease.env()["WHARFINGER_PATH"], lease.path);
    const found = await client.get(lease.id);
    assert.deepEqual([found.holder, found.work, found.tags["a"]], ["me", "unit@1", "b"]);
    const ids: string[] = [];
    for await (const each of client.list()) ids.push(each.id);
    assert(ids.includes(lease.id));
    assert.notEqual((await client.explain(lease.id)).summary, "");
    const before = found.expiresAt?.seconds ?? 0n;
    assert(((await client.renew(lease.id, 120_000)).expiresAt?.seconds ?? 0n) > before);
    return 7;
  });
  assert.equal(value, 7);
  assert.equal(kept?.released?.outcome, Outcome.OK);
  assert.notEqual((await client.server()).version, "");
  assert.deepEqual((await client.pools()).map((pool) => pool.name), ["here"]);
});

test("work that fails is reported and released as FAILED, and the finding is known", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  let kept: Lease | undefined;
  const failure = new Error("three tests failed");
  const error = await thrown(
    client.withLease({ pool: "here", work: "unit@1" }, (lease) => {
      kept = lease;
      throw failure;
    }),
  );
  assert.equal(error, failure);
  assert.equal(kept?.released?.outcome, Outcome.FAILED);
  assert.match(kept.released.note, /three tests failed/);
  assert.equal((await kept.verdict())?.fault, Finding_Fault.UNDECIDED);
  assert.match(await broker.cli("events"), /HOLDER_REPORTED|reported/);
});

test("a break fires the signal within a second", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  let heard = 0;
  let breaking: Promise<number> | undefined;
  const error = await thrown(
    client.withLease({ pool: "here" }, async (lease) => {
      breaking = broker.cli("break", lease.id, "--reason", "a test").then(() => performance.now());
      try {
        return await endless(lease);
      } finally {
        heard = performance.now();
      }
    }),
  );
  assert(error instanceof LeaseBroken, inspect(error));
  assert.equal(error.causes[0]?.reason, "OPERATOR");
  assert.deepEqual([error.why, error.retry, error.fault], ["ended", true, "RESOURCE"]);
  // The verb of the operator ends after the news, or a moment before.
  const broken = await breaking;
  assert(broken !== undefined && heard - broken < 1_000, `${heard - (broken ?? 0)} ms`);
});

test("a break ends a child that has the signal, and the body's error is the cause", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  let pid = 0;
  const error = await thrown(
    client.withLease({ pool: "here" }, async (lease) => {
      const child = spawn("sleep", ["1000"], { signal: lease.signal, killSignal: "SIGKILL", env: { ...process.env, ...lease.env() }, cwd: lease.path });
      pid = child.pid ?? 0;
      const ended = new Promise<Error>((resolve) => child.once("error", resolve));
      await broker.cli("break", lease.id, "--reason", "a test");
      throw await ended;
    }),
  );
  assert(error instanceof LeaseBroken);
  assert.equal((error.cause as Error).name, "AbortError");
  await until(() => !alive(pid), "the end of the child");
});

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test("a command by `wharfinger on` is behind the fence and ends with the lease", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  await client.withLease({ pool: "here" }, async (lease) => {
    const child = spawn(PROGRAM, ["--server", broker.address, "on", lease.id, "--", "sh", "-c", 'printf "%s" "$WHARFINGER_LEASE"'], {
      signal: lease.signal,
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (part: string) => (output += part));
    assert.equal(await new Promise((resolve) => child.once("close", resolve)), 0);
    assert.equal(output, lease.id);
  });
});

test("a body that swallows the break has no lease all the same", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  const error = await thrown(
    client.withLease({ pool: "here" }, async (lease) => {
      await broker.cli("break", lease.id, "--reason", "a test");
      await fired(lease.signal);
      assert.throws(() => lease.check(), LeaseBroken);
    }),
  );
  assert(error instanceof LeaseBroken);
});

test("a cancel from outside stays one and releases as ABANDONED", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  const outside = new AbortController();
  const why = new Error("superseded");
  let id = "";
  const error = await thrown(
    client.withLease({ pool: "here", signal: outside.signal }, async (lease) => {
      id = lease.id;
      setTimeout(() => outside.abort(why), 50);
      return endless(lease);
    }),
  );
  assert.equal(error, why);
  assert.equal(await outcome(client, id), Outcome.ABANDONED);
  // One that returns in place of throwing has not done its work either.
  const again = new AbortController();
  const other = await thrown(
    client.withLease({ pool: "here", signal: again.signal }, async (lease) => {
      id = lease.id;
      again.abort(why);
      await fired(lease.signal);
    }),
  );
  assert.equal(other, why);
  assert.equal(await outcome(client, id), Outcome.ABANDONED);
});

test("`await using` releases as ABANDONED, or as release said", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  const ids: string[] = [];
  {
    await using lease = await client.lease({ pool: "here" });
    ids.push(lease.id);
  }
  {
    await using lease = await client.lease({ pool: "here" });
    ids.push(lease.id);
    await lease.release("OK", { note: "done" });
  }
  assert.deepEqual(await Promise.all(ids.map((id) => outcome(client, id))), [Outcome.ABANDONED, Outcome.OK]);
});

test("a holder that gives up in the queue leaves it, and a full pool says so", async () => {
  await using broker = await Broker.start({ slots: 1 });
  await using client = new Client(broker.address);
  await client.withLease({ pool: "here" }, async () => {
    const error = await thrown(client.lease({ pool: "here", signal: AbortSignal.timeout(500) }));
    assert.equal((error as Error).name, "TimeoutError");
    const live: string[] = [];
    for await (const each of client.list()) live.push(each.id);
    assert.equal(live.length, 1);
    const late = (await thrown(client.lease({ pool: "here", waitMs: 300 }))) as CapacityError;
    assert.deepEqual([late.name, late.reason], ["CapacityError", "WAIT_DEADLINE"]);
    const full = (await thrown(client.lease({ pool: "here", noQueue: true }))) as CapacityError;
    assert.deepEqual([full.name, full.reason], ["CapacityError", "NO_CAPACITY"]);
  });
});

test("errors say who must act", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  const unknown = (await thrown(client.lease({ pool: "nowhere" }))) as CallError;
  assert.deepEqual([unknown.name, unknown.reason], ["NotFound", "UNKNOWN_POOL"]);
  const wrong = (await thrown(client.lease({ pool: "here", ttlMs: -1000 }))) as CallError;
  assert.equal(wrong.name, "RequestError");
  assert(wrong.violations.length > 0 || wrong.reason !== undefined);
  const first = await client.request({ requestId: "one", selector: { pool: "here" } });
  const again = await client.request({ requestId: "one", selector: { pool: "here" } });
  assert.equal(first.leases[0]?.id, again.leases[0]?.id);
  const conflict = await thrown(client.lease({ pool: "here", requestId: "one", holder: "another" }));
  assert(conflict instanceof StateError);
  assert.equal(conflict.reason, "REQUEST_ID_CONFLICT");
  await using nothing = new Client({ server: "127.0.0.1:1", retryForMs: 0 });
  const unreached = await thrown(nothing.server());
  assert(unreached instanceof Unavailable);
  assert.match(unreached.message, /cannot be reached .*ECONNREFUSED/);
});

test("a restart of the broker is not seen, and the watch resumes", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  let breaking: Promise<string> | undefined;
  const error = await thrown(
    client.withLease({ pool: "here", ttlMs: 20_000 }, async (lease) => {
      await broker.kill();
      await broker.up();
      await client.renew(lease.id);
      assert.equal(lease.lost, undefined);
      breaking = broker.cli("break", lease.id, "--reason", "a test");
      return endless(lease);
    }),
  );
  await breaking;
  assert(error instanceof LeaseBroken);
  assert.match(error.message, /OPERATOR/);
});

test("without contact for a whole TTL the lease is lost", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  const begun = performance.now();
  const error = await thrown(
    client.withLease({ pool: "here", ttlMs: 2_000 }, async (lease) => {
      // It is renewed meanwhile.
      await pause(2_500);
      await broker.kill();
      return endless(lease);
    }),
  );
  assert(error instanceof LeaseBroken);
  assert.equal(error.why, "no-contact");
  assert(performance.now() - begun < 20_000);
});

test("a lease that the broker does not know any more is lost", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  const error = await thrown(
    client.withLease({ pool: "here", ttlMs: 5_000 }, async (lease) => {
      await broker.kill();
      for (const name of ["w.db", "w.db-wal", "w.db-shm"]) rmSync(join(broker.folder, name), { force: true });
      await broker.up();
      return endless(lease);
    }),
  );
  assert(error instanceof LeaseBroken);
  assert.equal(error.why, "forgotten");
});

test("attempts go on elsewhere after a break, and stop at the last one", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  const tried: string[] = [];
  const value = await client.attempts({ pool: "here", retries: 2 }, async (lease, attempt) => {
    tried.push(lease.id);
    if (attempt === 0) {
      await broker.cli("break", lease.id, "--reason", "a test");
      return endless(lease);
    }
    return "done";
  });
  assert.equal(value, "done");
  assert.equal(new Set(tried).size, 2);
  const error = await thrown(
    client.attempts({ pool: "here", retries: 0 }, async (lease) => {
      await broker.cli("break", lease.id, "--reason", "a test");
      return endless(lease);
    }),
  );
  assert(error instanceof LeaseBroken);
});

test("a watch begins with the current state and ends with its signal", async () => {
  await using broker = await Broker.start();
  await using client = new Client(broker.address);
  await using lease = await client.lease({ pool: "here" });
  const stop = new AbortController();
  const kinds: string[] = [];
  for await (const event of client.watch({ leaseIds: [lease.id] }, stop.signal)) {
    kinds.push(event.kind);
    if (event.kind === "synced") stop.abort();
  }
  assert.deepEqual(kinds, ["lease", "synced"]);
});
