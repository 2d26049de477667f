/** A broker of a test alone, scripted servers, and waits. */

import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));
/** Longer than anything should take on a busy two-core machine, in milliseconds. */
export const PATIENCE = 60_000;

/** The program under test. */
export const PROGRAM = process.env["WHARFINGER_PROGRAM"] ?? join(ROOT, "target/debug/wharfinger");
const PYTHON = join(process.env["WHARFINGER_VENVS"] ?? join(ROOT, "target/clients"), "main/bin/python");

// What the caller has in its environment is no part of a test.
for (const name of Object.keys(process.env)) {
  if (name.startsWith("WHARFINGER_")) delete process.env[name];
}

/** Polls until there is something. */
export async function until<T>(found: () => Promise<T | undefined | false> | T | undefined | false, what: string): Promise<T> {
  const end = Date.now() + PATIENCE;
  while (Date.now() < end) {
    const value = await found();
    if (value !== undefined && value !== false) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`in vain waited for: ${what}`);
}

/** Whether something listens there. */
function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const end = (answer: boolean) => () => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", end(true)).once("error", end(false));
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const tried = createServer();
    tried.once("error", reject);
    tried.listen(0, "127.0.0.1", () => {
      const address = tried.address();
      assert(address !== null && typeof address === "object");
      tried.close(() => resolve(address.port));
    });
  });
}

/** A running `wharfinger serve` with pool `here` of this machine. */
export class Broker implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "wharfinger-ts."));
  #port = 0;
  #process: ChildProcess | undefined;

  /** Starts one. `server`, and what `prepare` returns: more of its configuration, which may name `FOLDER`. */
  static async start({ slots = 4, server = "", prepare }: { slots?: number; server?: string; prepare?: (folder: string) => string } = {}): Promise<Broker> {
    const broker = new Broker();
    try {
      broker.#port = await freePort();
      const given = (text: string): string => text.replaceAll("FOLDER", broker.folder);
      const more = prepare?.(broker.folder) ?? "";
      writeFileSync(
        join(broker.folder, "w.toml"),
        `[server]\nlisten = "${broker.address}"\n${given(server)}\n[store]\npath = "w.db"\n[limits]\ngrace = "5s"\n${given(more)}\n` +
          `[[pool]]\nname = "here"\nadapter = "local"\nslots = ${slots}\nmin_ready = 1\n[pool.local]\nroot = "scratch"\n`,
      );
      await broker.up();
      return broker;
    } catch (error) {
      await broker[Symbol.asyncDispose]();
      throw error;
    }
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get log(): string {
    return readFileSync(join(this.folder, "serve.log"), "utf8");
  }

  async up(): Promise<void> {
    const log = openSync(join(this.folder, "serve.log"), "a");
    const child = spawn(PROGRAM, ["serve", "--config", join(this.folder, "w.toml")], {
      stdio: ["ignore", log, log],
      env: { ...process.env, WHARFINGER_LOG: "info" },
    });
    closeSync(log);
    this.#process = child;
    await until(async () => {
      if (child.exitCode !== null) throw new Error(`the server ended:\n${this.log}`);
      return listens(this.#port);
    }, "the server");
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  /** Runs a verb of the command line. Returns its standard output. */
  async cli(...argv: string[]): Promise<string> {
    const child = spawn(PROGRAM, ["--server", this.address, ...argv], { stdio: ["ignore", "pipe", "pipe"] });
    let [output, errors] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (part: string) => (output += part));
    child.stderr.setEncoding("utf8").on("data", (part: string) => (errors += part));
    const code = await new Promise((resolve) => child.once("close", resolve));
    assert.equal(code, 0, `${argv.join(" ")}: ${errors}`);
    return output;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
  }
}

/** Runs the program to its end. Returns its output. */
export function run(...argv: string[]): string {
  const done = spawnSync(PROGRAM, argv, { encoding: "utf8", timeout: PATIENCE });
  assert.equal(done.status, 0, `${argv.join(" ")}: ${done.stderr}`);
  return done.stdout + done.stderr;
}

/** Servers that answer as a test says: tests/clients/scripted.py. */
export class Scripted implements AsyncDisposable {
  constructor(
    readonly ports: readonly number[],
    readonly child: ChildProcess,
  ) {}

  static async start(servers: readonly unknown[]): Promise<Scripted> {
    const child = spawn(PYTHON, [join(ROOT, "tests/clients/scripted.py")], { stdio: ["pipe", "pipe", "inherit"] });
    child.stdin.write(`${JSON.stringify(servers)}\n`);
    const line = await new Promise<string>((resolve, reject) => {
      createInterface({ input: child.stdout }).once("line", resolve);
      child.once("error", reject).once("exit", (code) => reject(new Error(`the scripted servers ended with ${code}`)));
    });
    return new Scripted(JSON.parse(line) as number[], child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.stdin?.end();
    await ended;
  }
}

/** The cases of a table of behaviours that all clients pass. */
export function cases<T>(table: string): readonly T[] {
  const found = JSON.parse(readFileSync(join(ROOT, `tests/clients/${table}.json`), "utf8")) as { cases: readonly T[] };
  assert(found.cases.length > 5);
  return found.cases;
}
