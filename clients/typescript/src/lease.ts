/** One lease that is active: it renews itself, and a break fires its signal. */

import type { Client } from "./client.js";
import { CallError, LeaseBroken, NotFound, StateError, WharfingerError } from "./errors.js";
import { Finding_Fault, Outcome, type Access, type Finding, type Lease as LeaseMessage } from "./gen/wharfinger/v1/types_pb.js";
import type { Keeper, Status } from "./keeper.js";
import { now, timestampMs } from "./time.js";

/** How the work of a lease went. `ABANDONED`: it was cut short by its owner, or its end is unknown. */
export type OutcomeName = "OK" | "FAILED" | "TAINTED" | "ABANDONED";

/** What a release says beside the outcome. */
export interface ReleaseOptions {
  /** Note for the audit trail, at most 4,096 bytes. */
  readonly note?: string;
  /** Time for which the resource is kept as the work left it, in milliseconds. */
  readonly holdMs?: number;
}

/** One lease. `await using` releases it as ABANDONED, unless `release` was called: how its block ended is not known there.
 *
 * `Client.withLease` releases by how its body ends. */
export class Lease implements AsyncDisposable {
  readonly client: Client;
  /** Fires when the holder must stop: the lease is lost, or the signal of its request fired. The reason is a `LeaseBroken`, or the
   * reason of that signal. */
  readonly signal: AbortSignal;
  /** The lease after its release. */
  released: LeaseMessage | undefined;
  readonly #keeper: Keeper;
  readonly #outer: AbortSignal | undefined;
  readonly #abort = new AbortController();
  readonly #cancelled = (): void => this.#abort.abort(this.#outer?.reason);

  constructor(client: Client, keeper: Keeper, outer: AbortSignal | undefined) {
    this.client = client;
    this.#keeper = keeper;
    this.#outer = outer;
    this.signal = this.#abort.signal;
    keeper.onLost(() => {
      this.#outer?.removeEventListener("abort", this.#cancelled);
      this.#abort.abort(keeper.lost);
    });
    outer?.addEventListener("abort", this.#cancelled, { once: true });
    if (outer?.aborted === true) this.#cancelled();
  }

  /** Last known state of the lease. */
  get message(): LeaseMessage {
    return this.#keeper.lease;
  }

  /** Id of the lease. */
  get id(): string {
    return this.#keeper.id;
  }

  /** Status of the lease. */
  get status(): Status {
    return this.#keeper.status;
  }

  /** Why the lease is lost. Not set: it is not. */
  get lost(): LeaseBroken | undefined {
    return this.#keeper.lost;
  }

  /** Pool that serves it. */
  get pool(): string {
    return this.message.pool;
  }

  /** Id of the resource, also after the end of the lease. */
  get resourceId(): string {
    return this.#keeper.resourceId;
  }

  /** How to reach the resource. */
  get access(): Access | undefined {
    return this.message.access;
  }

  /** Absolute path of the working copy, or of the host's scratch directory. */
  get path(): string {
    return this.access?.path ?? "";
  }

  /** Fencing token: grows with every lease of the slot. Pass it to what the work writes to, and refuse smaller ones there. */
  get token(): bigint {
    return this.message.fencingToken;
  }

  /** Announced end of the resource. */
  get endsAt(): Date | undefined {
    return this.message.endsAt && new Date(timestampMs(this.message.endsAt));
  }

  /** Why the resource is in doubt, in words. Empty: it is in no doubt. */
  get doubt(): string {
    return this.message.doubt?.detail ?? "";
  }

  /** Whose fault a failure was, as far as it is known after the release. */
  get finding(): Finding | undefined {
    return (this.released ?? this.message).finding;
  }

  /** Returns the `WHARFINGER_*` variables of a process that works under the lease: those of `wharfinger run`. */
  env(): Record<string, string> {
    const { message, access } = this;
    const found: Record<string, string> = {
      LEASE: message.id,
      TOKEN: String(message.fencingToken),
      RESOURCE: message.resourceId,
      POOL: message.pool,
      SERVER: this.client.settings.server,
      PATH: access?.path ?? "",
      COMMIT: access?.commit ?? "",
      BASE: access?.base ?? "",
      FENCE: access?.fence ?? "",
      ROOT: access?.root ?? "",
      ENDS_AT: this.endsAt?.toISOString() ?? "",
    };
    for (const [key, value] of Object.entries(access?.more ?? {})) {
      if (key.startsWith("commit.")) found[key.toUpperCase().replaceAll(/[^A-Z0-9]/g, "_")] = value;
    }
    return Object.fromEntries(Object.entries(found).flatMap(([name, value]) => (value === "" ? [] : [[`WHARFINGER_${name}`, value]])));
  }

  /** Throws `LeaseBroken` if the lease is lost. */
  check(): void {
    if (this.lost !== undefined) throw this.lost;
  }

  /** Waits for the next change of the lease, or until the signal fires. */
  changed(signal?: AbortSignal): Promise<void> {
    return this.#keeper.changed(signal);
  }

  /** Has the resource checked while the work goes on. The lease breaks if the check finds it unfit. `unreached`: the holder cannot
   * reach it from here. */
  async report(note = "", unreached = false): Promise<void> {
    this.#keeper.news(await this.client.report(this.id, note, unreached));
  }

  /** Reports a failure, and waits until the broker has checked the resource, at most for `Settings.checkForMs`. The lease breaks if
   * the check finds the resource unfit. */
  async untilChecked(note: string): Promise<void> {
    const end = now() + this.client.settings.checkForMs;
    if (this.client.settings.checkForMs <= 0) return;
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), this.client.settings.checkForMs);
    try {
      await this.report(note);
      while (this.lost === undefined && this.message.doubt !== undefined && now() < end && !limit.signal.aborted) {
        await this.changed(limit.signal);
      }
    } catch (error) {
      // The release says the same, and the broker checks then.
      if (!(error instanceof CallError)) throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the lease. A lease that has ended already stays as it is. Throws `CallError` if the broker cannot be reached: the lease then
   * ends by its TTL. */
  async release(outcome: OutcomeName, options: ReleaseOptions = {}): Promise<void> {
    this.#outer?.removeEventListener("abort", this.#cancelled);
    if (this.released !== undefined || this.lost !== undefined) return;
    this.#keeper.stop();
    try {
      this.released = await this.client.release(this.id, outcome, options);
    } catch (error) {
      if (!(error instanceof StateError || error instanceof NotFound)) throw error;
    }
  }

  /** Releases the lease as `release` does, and warns of a failure in place of throwing it. */
  async end(outcome: OutcomeName, note: string): Promise<void> {
    try {
      await this.release(outcome, { note });
    } catch (error) {
      if (!(error instanceof WharfingerError)) throw error;
      this.client.settings.warn(`lease ${this.id} was not released, and ends by its TTL: ${error.message}`);
    }
  }

  /** Returns whose fault a failure was, after the release. Waits for a check under way, at most for this time. */
  async verdict(limitMs = 3_000): Promise<Finding | undefined> {
    if (this.finding?.fault !== Finding_Fault.OPEN) return this.finding;
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), limitMs);
    try {
      for await (const event of this.client.watch({ leaseIds: [this.id] }, limit.signal)) {
        if (event.kind === "lease" && event.lease.finding?.fault !== Finding_Fault.OPEN) {
          this.released = event.lease;
          break;
        }
      }
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
    } finally {
      clearTimeout(timer);
      limit.abort();
    }
    return this.finding;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.released === undefined) await this.end("ABANDONED", "");
  }
}

/** The outcome as the API has it. */
export function outcomeOf(name: OutcomeName): Outcome {
  return Outcome[name];
}

/** An error as a note. */
export function words(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

