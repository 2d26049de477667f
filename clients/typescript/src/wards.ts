/** One watch for many kept leases: a stream names up to 128 of them, and is opened anew when another one joins. */

import { create } from "@bufbuild/protobuf";
import { Backoff } from "./backoff.js";
import { NotFound, WharfingerError } from "./errors.js";
import { WatchRequestSchema } from "./gen/wharfinger/v1/lease_pb.js";
import type { Lease } from "./gen/wharfinger/v1/types_pb.js";
import { now, Timer } from "./time.js";
import type { Transport } from "./transport.js";
import { watch, type Seen } from "./watch.js";

/** Maximum number of leases of one stream. */
const MOST = 128;
/** Minimum time between two openings for leases that join, in milliseconds. */
const GATHER = 20;

/** A lease that is kept. */
export interface Kept {
  readonly id: string;
  /** Takes a state of the lease. */
  news(lease: Lease): void;
  /** The lease cannot be watched now: a renewal tells how it is. */
  ask(): void;
}

/** The streams of one client. */
export class Wards {
  readonly #wards = new Set<Ward>();
  readonly #of = new Map<Kept, Ward>();

  constructor(
    readonly transport: Transport,
    readonly seen: Seen,
    readonly warn: (text: string) => void,
  ) {}

  /** Reports the states of a lease from now on. */
  join(kept: Kept): void {
    let ward = [...this.#wards].find((ward) => ward.hasRoomFor(kept.id));
    if (ward === undefined) {
      ward = new Ward(this);
      this.#wards.add(ward);
    }
    this.#of.set(kept, ward);
    ward.join(kept);
  }

  /** Reports no states of a lease any more. */
  leave(kept: Kept): void {
    const ward = this.#of.get(kept);
    this.#of.delete(kept);
    if (ward?.leave(kept) === true) this.#wards.delete(ward);
  }

  /** Ends all streams. */
  close(): void {
    for (const ward of this.#wards) ward.stop();
    this.#wards.clear();
    this.#of.clear();
  }
}

class Ward {
  readonly #kept = new Map<string, Kept>();
  readonly #backoff = new Backoff(200, 10_000);
  readonly #timer = new Timer(() => this.#open());
  #abort: AbortController | undefined;
  #opened = -Infinity;

  constructor(readonly wards: Wards) {}

  hasRoomFor(id: string): boolean {
    return !this.#kept.has(id) && this.#kept.size < MOST;
  }

  join(kept: Kept): void {
    this.#kept.set(kept.id, kept);
    this.#openWithin(Math.max(0, this.#opened + GATHER - now()));
  }

  /** Returns whether it was the last one. */
  leave(kept: Kept): boolean {
    this.#kept.delete(kept.id);
    if (this.#kept.size > 0) return false;
    this.stop();
    return true;
  }

  stop(): void {
    this.#timer.clear();
    this.#abort?.abort();
    this.#abort = undefined;
  }

  #openWithin(ms: number): void {
    if (!this.#timer.isSet) this.#timer.set(ms);
  }

  #open(): void {
    this.stop();
    if (this.#kept.size === 0) return;
    this.#opened = now();
    this.#abort = new AbortController();
    void this.#follow([...this.#kept.keys()], this.#abort.signal);
  }

  async #follow(leaseIds: string[], signal: AbortSignal): Promise<void> {
    const { transport, seen, warn } = this.wards;
    try {
      for await (const event of watch(transport, seen, create(WatchRequestSchema, { leaseIds }), signal)) {
        if (event.kind !== "lease") continue;
        this.#backoff.reset();
        this.#kept.get(event.lease.id)?.news(event.lease);
      }
    } catch (error) {
      if (signal.aborted) return;
      // One of the leases is forgotten, or these are the credentials of another caller: renewals tell.
      if (!(error instanceof NotFound)) warn(`leases cannot be watched: ${error instanceof Error ? error.message : String(error)}`);
      for (const kept of [...this.#kept.values()]) kept.ask();
      if (this.#kept.size > 0) this.#openWithin(this.#backoff.wait());
      if (!(error instanceof WharfingerError)) throw error;
    }
  }
}
