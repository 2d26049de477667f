/** Keeps a lease: renews it at a third of its TTL, takes the news of a watch, and reports its loss.
 *
 * Two times of a lease decide, and no state, so that it survives states of a later version: `ended_at` set, it is over; else `active_at`
 * set, the holder may work; else it waits. */

import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { Backoff, jittered } from "./backoff.js";
import { CallError, LeaseBroken, NotFound, StateError, WharfingerError, type LostWhy } from "./errors.js";
import { GetRequestSchema, LeaseService, RenewRequestSchema } from "./gen/wharfinger/v1/lease_pb.js";
import { TrustService } from "./gen/wharfinger/v1/trust_pb.js";
import { LeaseState, type Lease } from "./gen/wharfinger/v1/types_pb.js";
import { durationMs, now, Timer, timestampMs } from "./time.js";
import type { Transport } from "./transport.js";
import type { Kept, Wards } from "./wards.js";
import type { Seen } from "./watch.js";

/** Status of a kept lease.
 *
 * * `waiting`: it waits, or its slot is made ready.
 * * `active`: the holder may work.
 * * `doubt`: the holder may work; the resource is in doubt.
 * * `ends`: the holder may work until the resource ends.
 * * `lost`: the holder must stop. */
export type Status = "waiting" | "active" | "doubt" | "ends" | "lost";

/** Whether the lease is over, whatever its state. */
export function isOver(lease: Lease): boolean {
  return lease.endedAt !== undefined;
}

/** Whether the holder may work, whatever the state. */
export function mayWork(lease: Lease): boolean {
  return lease.activeAt !== undefined && !isOver(lease);
}

/** Returns the status by what the broker reports of a lease. */
export function statusOf(lease: Lease): Status {
  if (isOver(lease)) return "lost";
  if (!mayWork(lease)) return "waiting";
  if (lease.endsAt !== undefined) return "ends";
  return lease.doubt === undefined ? "active" : "doubt";
}

/** Returns the name of a lease's state. */
export function stateName(lease: Lease): string {
  return LeaseState[lease.state] ?? `in state ${String(lease.state)}`;
}

function ttlOf(lease: Lease): number {
  return (lease.ttl === undefined ? 0 : durationMs(lease.ttl)) || 60_000;
}

function broken(lease: Lease, why: LostWhy, resourceId: string): LeaseBroken {
  let text: string;
  if (why === "forgotten") text = `the broker no longer knows lease ${lease.id}`;
  else if (why === "no-contact") text = `no contact with the broker for the whole TTL of lease ${lease.id}: take it for lost`;
  else {
    text = `lease ${lease.id} is ${stateName(lease)}`;
    const [near, root] = [lease.causes[0], lease.causes.at(-1)];
    if (near !== undefined && root !== undefined && near !== root) {
      text += `: ${near.reason} (${near.detail}), because of ${root.reason}: ${root.detail}`;
    } else if (near !== undefined) text += `: ${near.reason} (${near.detail})`;
    else if (lease.failDetail !== "") text += `: ${lease.failDetail}`;
  }
  return new LeaseBroken(lease, why, text, resourceId);
}

/** What a keeper needs of its client. */
export interface KeeperOf {
  readonly transport: Transport;
  readonly seen: Seen;
  readonly wards: Wards;
  readonly settings: { readonly warn: (text: string) => void };
}

/** Keeps one lease until it is lost or `stop` is called. Releases nothing. */
export class Keeper implements Kept {
  readonly id: string;
  lease: Lease;
  /** The resource of the lease, also after its end. */
  resourceId: string;
  status: Status = "waiting";
  /** Why the lease is lost. */
  lost: LeaseBroken | undefined;
  readonly #client: KeeperOf;
  readonly #backoff: Backoff;
  readonly #renewal = new Timer(() => void this.#renew());
  readonly #held = new Timer(() => this.#lose("no-contact"));
  readonly #waiters = new Set<() => void>();
  readonly #onLost: (() => void)[] = [];
  #renewing = false;
  #stranger = false;
  #stopped = false;

  constructor(client: KeeperOf, lease: Lease) {
    this.id = lease.id;
    this.lease = lease;
    this.resourceId = lease.resourceId;
    this.#client = client;
    this.#backoff = new Backoff(100, Math.max(ttlOf(lease) / 10, 200));
    client.wards.join(this);
    this.#told();
  }

  news(lease: Lease): void {
    // Renewals and the watch may cross, so that it may be older than the known one.
    if (this.#stopped || lease.revision < this.lease.revision) return;
    this.#client.seen.note(lease.revision);
    this.lease = lease;
    this.resourceId = lease.resourceId || this.resourceId;
    this.#told();
  }

  ask(): void {
    if (!this.#stopped && !this.#renewing) this.#renewal.set(0);
  }

  /** Calls this at the loss of the lease; at once if it is lost. */
  onLost(action: () => void): void {
    if (this.lost === undefined) this.#onLost.push(action);
    else action();
  }

  /** Waits for the next change, or until the signal fires. */
  changed(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (this.#stopped || signal?.aborted === true) {
        resolve();
        return;
      }
      const done = (): void => {
        this.#waiters.delete(done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      this.#waiters.add(done);
      signal?.addEventListener("abort", done, { once: true });
    });
  }

  /** Stops the renewals. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#renewal.clear();
    this.#held.clear();
    this.#client.wards.leave(this);
    this.#tell();
  }

  #told(): void {
    const status = statusOf(this.lease);
    if (status === "lost") {
      this.#lose("ended");
      return;
    }
    if (status !== "waiting") {
      if (!this.#held.isSet) this.#held.set(ttlOf(this.lease));
      if (!this.#renewal.isSet && !this.#renewing) this.#renewal.set(firstRenewal(this.lease));
    }
    this.status = status;
    this.#tell();
  }

  #tell(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  #lose(why: LostWhy): void {
    if (this.lost !== undefined || this.#stopped) return;
    this.lost = broken(this.lease, why, this.resourceId);
    this.status = "lost";
    this.stop();
    for (const action of this.#onLost) action();
  }

  /** One try. A lease that cannot be renewed is read instead. */
  async #renew(): Promise<void> {
    if (this.#renewing || this.#stopped) return;
    this.#renewing = true;
    let again: number;
    try {
      again = await this.#tryToRenew();
    } catch (error) {
      this.#client.settings.warn(`a renewal of lease ${this.id} failed by a mistake of the client: ${String(error)}`);
      again = this.#backoff.wait();
    } finally {
      this.#renewing = false;
    }
    // The news of the watch may have ended the lease meanwhile.
    if (this.isKept()) this.#renewal.set(again);
  }

  private isKept(): boolean {
    return !this.#stopped;
  }

  /** Returns the time to the next try, in milliseconds. */
  async #tryToRenew(): Promise<number> {
    const { transport, seen } = this.#client;
    const timeout = Math.max(ttlOf(this.lease) / 3, 500);
    let sent: number | undefined = now();
    let lease: Lease | undefined;
    try {
      try {
        lease = (await transport.unary(LeaseService.method.renew, create(RenewRequestSchema, { leaseId: this.id }), timeout)).lease;
      } catch (error) {
        if (!(error instanceof StateError)) throw error;
        // A server that follows may be a moment behind: the read is not older than any answer before.
        sent = undefined;
        const read = create(GetRequestSchema, { leaseId: this.id, minRevision: seen.latest });
        lease = (await transport.unary(LeaseService.method.get, read, timeout)).lease;
      }
    } catch (error) {
      if (error instanceof NotFound && !(await this.#isStranger(timeout))) {
        this.#lose("forgotten");
      } else if (!(error instanceof WharfingerError)) {
        throw error;
      }
      return this.#backoff.wait();
    }
    this.#backoff.reset();
    this.#stranger = false;
    if (lease === undefined) return this.#backoff.wait();
    if (sent !== undefined && mayWork(lease) && this.isKept()) {
      // From the time of sending: the broker counts from the arrival, which is later.
      this.#held.set(sent + ttlOf(lease) - now());
    }
    this.news(lease);
    return jittered(ttlOf(lease) / 3, 0.8);
  }

  /** Whether a lease that is not found is another caller's, or it cannot be found out now. */
  async #isStranger(timeout: number): Promise<boolean> {
    if (this.lease.principal === "") return false;
    let principal: string;
    try {
      principal = (await this.#client.transport.unary(TrustService.method.whoAmI, create(TrustService.method.whoAmI.input), timeout)).principal;
    } catch (error) {
      // A broker that cannot say who calls has forgotten the lease.
      return !(error instanceof CallError && error.code === Code.Unimplemented);
    }
    if (principal === this.lease.principal) return false;
    if (!this.#stranger) {
      this.#stranger = true;
      this.#client.settings.warn(
        `the credentials are those of ${principal}, and lease ${this.id} belongs to ${this.lease.principal}: it cannot be renewed until they are right again`,
      );
    }
    return true;
  }
}

/** Milliseconds until the first renewal. A lease that became active long ago has less than a TTL left, and is renewed at once. The same
 * holds if the clocks of the two machines differ, since the rest of the TTL is then unknown. */
function firstRenewal(lease: Lease): number {
  const ttl = ttlOf(lease);
  const left = lease.expiresAt === undefined ? 0 : timestampMs(lease.expiresAt) - Date.now();
  return ttl * 0.9 <= left && left <= ttl * 1.1 ? jittered(ttl / 3, 0.8) : 0;
}
