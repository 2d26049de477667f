/** The package as a user has it: packed, installed in an empty folder, with types. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Broker, PATIENCE, ROOT } from "./farm.js";

const HERE = join(ROOT, "clients/typescript");

function npm(folder: string, ...argv: string[]): string {
  const done = spawnSync("npm", [...argv, "--no-audit", "--no-fund"], { cwd: folder, encoding: "utf8", timeout: 5 * PATIENCE });
  assert.equal(done.status, 0, `npm ${argv.join(" ")}: ${done.stderr}`);
  return done.stdout;
}

test("the packed package works in an empty folder, and its user sees types", async () => {
  const folder = mkdtempSync(join(tmpdir(), "wharfinger-npm."));
  try {
    // It is built: test.sh does it.
    npm(HERE, "pack", "--ignore-scripts", "--pack-destination", folder);
    const packed = readdirSync(folder).find((name) => name.endsWith(".tgz"));
    assert(packed !== undefined);
    writeFileSync(join(folder, "package.json"), '{"type": "module", "private": true}');
    npm(folder, "install", "--prefer-offline", "--omit=dev", `./${packed}`);
    const names = readdirSync(join(folder, "node_modules"));
    assert(!names.includes("typescript") && names.includes("wharfinger"), names.join());
    writeFileSync(
      join(folder, "use.mjs"),
      `import { Client } from "wharfinger";
import { LeaseState } from "wharfinger/v1";
const client = new Client(process.argv[2]);
await client.withLease({ pool: "here" }, (lease) => {
  if (lease.message.state !== LeaseState.ACTIVE) throw new Error("not active");
});
client.close();
console.log("done");
`,
    );
    await using broker = await Broker.start();
    // It ends by itself: nothing keeps the process.
    const done = spawnSync(process.execPath, ["--throw-deprecation", "use.mjs", broker.address], { cwd: folder, encoding: "utf8", timeout: PATIENCE });
    assert.deepEqual([done.status, done.stdout], [0, "done\n"], done.stderr);
    writeFileSync(
      join(folder, "use.ts"),
      `import { Client, type Lease } from "wharfinger";
import type { Pool } from "wharfinger/v1";
export async function work(client: Client): Promise<string> {
  const pools: readonly Pool[] = await client.pools();
  return client.withLease({ pool: pools[0]?.name ?? "" }, (lease: Lease) => lease.path);
}
export function wrong(client: Client): void {
  // @ts-expect-error -- a pool is a text.
  void client.lease({ pool: 3 });
}
`,
    );
    const options = { module: "nodenext", target: "es2022", lib: ["es2022", "esnext.disposable", "dom"], strict: true, noEmit: true, typeRoots: [join(HERE, "node_modules/@types")], types: ["node"] };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["use.ts"] }));
    const typed = spawnSync(process.execPath, [join(HERE, "node_modules/typescript/bin/tsc"), "-p", folder], { encoding: "utf8" });
    assert.equal(typed.status, 0, typed.stdout);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
