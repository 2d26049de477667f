/** The client of a broker. */

import { clone, create, type DescMessage, type DescMethodUnary, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { Backoff, newRequestId } from "./backoff.js";
import { Bug, CapacityError, errorOf, LeaseBroken, RequestError, Resync, StateError, Unavailable, WharfingerError, type CallError } from "./errors.js";
import { AdminService } from "./gen/wharfinger/v1/admin_pb.js";
import {
  GetRequestSchema,
  GetServerRequestSchema,
  LeaseRequestSchema,
  LeaseService,
  ListRequestSchema,
  ReleaseRequestSchema,
  RenewRequestSchema,
  ReportRequestSchema,
  WatchRequestSchema,
  type ExplainResponse,
  type GetServerResponse,
  type LeaseRequest,
  type LeaseResponse,
} from "./gen/wharfinger/v1/lease_pb.js";
import { TrustService, type WhoAmIResponse } from "./gen/wharfinger/v1/trust_pb.js";
import { FailReason, LeaseState, type Lease as LeaseMessage, type Pool } from "./gen/wharfinger/v1/types_pb.js";
import { isOver, Keeper, stateName } from "./keeper.js";
import { Lease, outcomeOf, words, type OutcomeName, type ReleaseOptions } from "./lease.js";
import { settingsOf, type Given, type Settings } from "./settings.js";
import { duration, durationMs, now, sleep } from "./time.js";
import { checkMessage, Transport } from "./transport.js";
import { Wards } from "./wards.js";
import { Seen, watch, type Watched } from "./watch.js";

/** Maximum number of leases that break before their work begins. */
const ANEW = 5;

/** What is asked for. All times are in milliseconds. */
export interface LeaseOptions {
  /** Pool. Empty: any that has the labels. */
  readonly pool?: string;
  /** Labels of the resource. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Parameters for the adapter: what a working copy checks out. */
  readonly branch?: string;
  readonly ref?: string;
  readonly tag?: string;
  readonly commit?: string;
  /** Other parameters for the adapter. */
  readonly params?: Readonly<Record<string, string>>;
  /** Name of the work, the same each time that it is tried. */
  readonly work?: string;
  /** Holder, in its own words. */
  readonly holder?: string;
  /** Id of the request: the same one again is the same lease. */
  readonly requestId?: string;
  /** Priority in the queue; higher goes first. */
  readonly priority?: number;
  /** Time from grant or renewal to the end. */
  readonly ttlMs?: number;
  /** Maximum time in the queue. */
  readonly waitMs?: number;
  /** Fail at once if nothing is free. */
  readonly noQueue?: boolean;
  /** Likely length of the work. */
  readonly expectedMs?: number;
  /** Tags; the server does not read them. */
  readonly tags?: Readonly<Record<string, string>>;
  /** Resources that failed the work before. */
  readonly avoid?: readonly string[];
  /** Gives up: the request leaves the queue, or the signal of the lease fires. */
  readonly signal?: AbortSignal;
}

/** A client of a broker. It connects at its first call.
 *
 * Settings that are not given are those of the environment: the variables of the command line (`WHARFINGER_SERVER` and so on). */
export class Client implements AsyncDisposable {
  readonly settings: Settings;
  /** Calls without repetition. */
  readonly transport: Transport;
  readonly seen = new Seen();
  readonly wards: Wards;

  constructor(given: Given | string = {}) {
    this.settings = settingsOf(typeof given === "string" ? { server: given } : given);
    this.transport = new Transport(this.settings);
    this.wards = new Wards(this.transport, this.seen, this.settings.warn);
  }

  /** Closes the connections. Releases nothing. */
  close(): void {
    this.wards.close();
    this.transport.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  // Leases.

  /** Asks for a lease, and waits until it is active. Release it by `await using` or `release`. */
  async lease(options: LeaseOptions = {}): Promise<Lease> {
    const request = this.#requestOf(options);
    let keeper: Keeper | undefined;
    try {
      for (let anew = 0; ; anew += 1) {
        options.signal?.throwIfAborted();
        const answer = await this.request(request, options.signal);
        options.signal?.throwIfAborted();
        const [first] = answer.leases;
        if (first === undefined) throw new Bug(Code.Internal, "the broker answered without a lease");
        keeper = new Keeper(this, first);
        while (keeper.status === "waiting") {
          await keeper.changed(options.signal);
          options.signal?.throwIfAborted();
        }
        if (keeper.lost === undefined) return new Lease(this, keeper, options.signal);
        if (keeper.lost.why === "ended" && keeper.lease.state !== LeaseState.BROKEN) throw notGranted(keeper.lease);
        // One that breaks before the work begins is asked for anew.
        if (anew + 1 >= ANEW) throw keeper.lost;
        request.requestId = newRequestId();
      }
    } catch (error) {
      keeper?.stop();
      if (options.signal?.aborted === true) await this.#giveUp(request, keeper?.lease);
      throw error;
    }
  }

  /** Leases, works and releases. Returns what the body returns.
   *
   * The body must stop when `lease.signal` fires: it is waited for. The release is OK; FAILED with the error's text if the body throws;
   * ABANDONED if `options.signal` fired or the error is of this package. Throws `LeaseBroken` if the lease broke, with the error of the
   * body as its cause. */
  async withLease<T>(options: LeaseOptions, body: (lease: Lease) => Promise<T> | T): Promise<T> {
    const lease = await this.lease(options);
    const cancelled = (): boolean => options.signal?.aborted === true;
    let value: T;
    try {
      value = await body(lease);
    } catch (error) {
      const ours = error instanceof WharfingerError;
      if (lease.lost === undefined && !cancelled() && !ours && lease.released === undefined) await lease.untilChecked(words(error));
      if (lease.lost !== undefined) throw lease.lost.with(error);
      await lease.end(cancelled() || ours ? "ABANDONED" : "FAILED", words(error));
      throw error;
    }
    if (lease.lost !== undefined && lease.released === undefined) throw lease.lost;
    await lease.end(cancelled() ? "ABANDONED" : "OK", "");
    options.signal?.throwIfAborted();
    return value;
  }

  /** Works as `withLease` does, at most `retries` times more while the lease breaks under the work. Each attempt avoids the resources
   * before. What is not a break, the last break, and a break whose root is the work itself are thrown. */
  async attempts<T>(options: LeaseOptions & { readonly retries?: number }, body: (lease: Lease, attempt: number) => Promise<T> | T): Promise<T> {
    const { retries = 2, ...wanted } = options;
    const avoid = [...(wanted.avoid ?? [])];
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.withLease({ ...wanted, avoid }, (lease) => body(lease, attempt));
      } catch (error) {
        if (!(error instanceof LeaseBroken) || !error.retry || attempt >= retries) throw error;
        if (error.resourceId !== "") avoid.push(error.resourceId);
      }
    }
  }

  /** Asks for leases as the message says, and keeps none of them. Without a `requestId` one is chosen; while the broker is unavailable
   * the same request is repeated, so that nothing is leased twice. */
  async request(request: MessageInitShape<typeof LeaseRequestSchema>, signal?: AbortSignal): Promise<LeaseResponse> {
    const message = create(LeaseRequestSchema, request);
    checkMessage(LeaseRequestSchema, message);
    const asked = clone(LeaseRequestSchema, message);
    asked.requestId = asked.requestId || newRequestId();
    const wait = asked.wait === undefined ? 0 : durationMs(asked.wait);
    const end = now() + wait;
    const once = (timeoutMs: number): Promise<LeaseResponse> => {
      // The rest of the wait.
      if (wait > 0) asked.wait = duration(Math.max(0, end - now()));
      return this.transport.unary(LeaseService.method.lease, asked, timeoutMs);
    };
    const answer = await this.#repeat(once, { waitMs: wait, ...(signal === undefined ? {} : { signal }) });
    // The wire carries a single lease once; here `leases` has all of them in any case.
    if (answer.leases.length === 0 && answer.lease !== undefined) answer.leases.push(answer.lease);
    for (const lease of answer.leases) this.seen.note(lease.revision);
    return answer;
  }

  /** Ends a lease and the others of its group. */
  async release(leaseId: string, outcome: OutcomeName, options: ReleaseOptions = {}): Promise<LeaseMessage> {
    const request = create(ReleaseRequestSchema, { leaseId, outcome: outcomeOf(outcome), note: noteOf(options.note ?? "") });
    if (options.holdMs !== undefined) request.hold = duration(options.holdMs);
    return this.#noted(await this.call(LeaseService.method.release, request, this.settings.releaseForMs));
  }

  /** Extends a lease once. A `Lease` renews itself. */
  async renew(leaseId: string, ttlMs?: number): Promise<LeaseMessage> {
    const request = create(RenewRequestSchema, { leaseId });
    if (ttlMs !== undefined) request.ttl = duration(ttlMs);
    return this.#noted(await this.call(LeaseService.method.renew, request));
  }

  /** Has the resource checked while the holder works. `unreached`: the holder cannot reach it from here. */
  async report(leaseId: string, note = "", unreached = false): Promise<LeaseMessage> {
    return this.#noted(await this.call(LeaseService.method.report, create(ReportRequestSchema, { leaseId, note: noteOf(note), unreached })));
  }

  // Reads: not older than any answer before.

  /** Returns one lease. */
  async get(leaseId: string): Promise<LeaseMessage> {
    const request = create(GetRequestSchema, { leaseId });
    const answer = await this.#read((minRevision) => this.call(LeaseService.method.get, { ...request, minRevision }));
    return known(answer.lease);
  }

  /** Yields leases, page by page. Without a request: all live and waiting leases. */
  async *list(request: MessageInitShape<typeof ListRequestSchema> = {}): AsyncGenerator<LeaseMessage, void, void> {
    const asked = create(ListRequestSchema, request);
    for (;;) {
      const answer = await this.#read((minRevision) => this.call(LeaseService.method.list, { ...asked, minRevision }));
      yield* answer.leases;
      if (answer.nextPageToken === "") return;
      asked.pageToken = answer.nextPageToken;
    }
  }

  /** Explains why a lease waits, or how it ended. */
  explain(leaseId: string): Promise<ExplainResponse> {
    return this.#read((minRevision) => this.call(LeaseService.method.explain, create(LeaseService.method.explain.input, { leaseId, minRevision })));
  }

  /** Returns the version, limits and features of a server. */
  server(): Promise<GetServerResponse> {
    return this.call(LeaseService.method.getServer, create(GetServerRequestSchema));
  }

  /** Returns the pools that the caller may see. */
  async pools(): Promise<readonly Pool[]> {
    return (await this.call(AdminService.method.listPools, create(AdminService.method.listPools.input))).pools;
  }

  /** Returns the caller as the server knows it. */
  whoAmI(): Promise<WhoAmIResponse> {
    return this.call(TrustService.method.whoAmI, create(TrustService.method.whoAmI.input));
  }

  /** Watches leases until the signal fires. Resumes by itself, and throws `CallError` for what a repetition does not mend. */
  watch(request: MessageInitShape<typeof WatchRequestSchema>, signal: AbortSignal): AsyncGenerator<Watched, void, void> {
    return watch(this.transport, this.seen, create(WatchRequestSchema, request), signal);
  }

  /** Calls any method with one answer, and repeats it while the broker is unavailable. The methods are those of the services of
   * `wharfinger/v1`. Throws `CallError`. */
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    retryForMs = this.settings.retryForMs,
  ): Promise<MessageShape<O>> {
    return this.#repeat((timeoutMs) => this.transport.unary(method, request, timeoutMs), { retryForMs });
  }

  /** Repeats a call until it succeeds, fails for good, or its time is over. `waitMs`: what it asks for. */
  async #repeat<T>(
    call: (timeoutMs: number) => Promise<T>,
    { waitMs = 0, retryForMs = this.settings.retryForMs, signal }: { waitMs?: number; retryForMs?: number; signal?: AbortSignal },
  ): Promise<T> {
    const giveUp = now() + waitMs + retryForMs;
    const backoff = new Backoff(100, 3_000);
    for (let tries = 1; ; tries += 1) {
      let pause: number;
      try {
        return await call(waitMs + this.transport.callTimeoutMs);
      } catch (error) {
        if (!(error instanceof Unavailable)) throw error;
        pause = backoff.wait(error.retryAfterMs);
        // A server that hangs takes all the time; the other servers are asked all the same.
        const patient = now() + pause <= giveUp || (tries < this.transport.count && retryForMs > 0);
        if (!patient) throw error;
      }
      await sleep(pause, signal);
      signal?.throwIfAborted();
    }
  }

  /** Reads a state that is not older than any answer before. Servers whose database was restored never reached it. */
  async #read<T extends object>(read: (minRevision: bigint) => Promise<T>): Promise<T> {
    const least = this.seen.latest;
    let answer: T;
    try {
      answer = await read(least);
    } catch (error) {
      if (!(error instanceof Resync) || least === 0n) throw error;
      this.seen.forget();
      answer = await read(0n);
    }
    if ("revision" in answer && typeof answer.revision === "bigint") this.seen.note(answer.revision);
    return answer;
  }

  #noted(answer: { readonly lease?: LeaseMessage | undefined }): LeaseMessage {
    const lease = known(answer.lease);
    this.seen.note(lease.revision);
    return lease;
  }

  /** Ends a request whose holder has gone. The answer may have been lost: the same request gives the same lease. */
  async #giveUp(request: LeaseRequest, lease: LeaseMessage | undefined): Promise<void> {
    try {
      lease ??= (await this.transport.unary(LeaseService.method.lease, request, 5_000)).lease;
      if (lease !== undefined && !isOver(lease)) await this.release(lease.id, "ABANDONED", { note: "its holder gave up" });
    } catch (error) {
      if (!(error instanceof WharfingerError)) throw error;
      if (!(error instanceof StateError)) this.settings.warn(`a request of a holder that gave up is not withdrawn: ${error.message}`);
    }
  }

  #requestOf(options: LeaseOptions): LeaseRequest {
    const { branch, ref, tag, commit } = options;
    const params = Object.entries({ branch, ref, tag, commit }).flatMap(([name, value]) => (value ? [[name, value] as const] : []));
    const request = create(LeaseRequestSchema, {
      // The same request again is the same lease: so it can be released.
      requestId: options.requestId || newRequestId(),
      holder: options.holder || this.settings.holder,
      selector: { pool: options.pool ?? "", labels: { ...options.labels } },
      params: { ...options.params, ...Object.fromEntries(params) },
      priority: options.priority ?? 0,
      noQueue: options.noQueue ?? false,
      tags: { ...options.tags },
      work: options.work ?? "",
      avoid: (options.avoid ?? []).slice(-16),
    });
    if (options.ttlMs !== undefined) request.ttl = duration(options.ttlMs);
    if (options.waitMs !== undefined) request.queueFor = duration(options.waitMs);
    if (options.expectedMs !== undefined) request.expectedDuration = duration(options.expectedMs);
    return request;
  }
}

function known(lease: LeaseMessage | undefined): LeaseMessage {
  if (lease === undefined) throw new Bug(Code.Internal, "the broker answered without a lease");
  return lease;
}

/** A note of at most 4,096 bytes. */
function noteOf(text: string): string {
  const bytes = Buffer.from(text);
  let end = Math.min(bytes.length, 4096);
  // No part of a character.
  while (end < bytes.length && end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.toString("utf8", 0, end);
}

/** The error for a lease that ended before it was active. */
function notGranted(lease: LeaseMessage): CallError {
  const text = `lease ${lease.id} is ${stateName(lease)}: ${lease.failDetail || lease.trouble || "it was never active"}`;
  const code = lease.failCode === "" ? {} : { reason: lease.failCode };
  switch (lease.failReason) {
    case FailReason.WAIT_DEADLINE:
      return new CapacityError(Code.ResourceExhausted, text, { reason: "WAIT_DEADLINE" });
    case FailReason.REQUEST:
      return new RequestError(Code.InvalidArgument, text, code);
    case FailReason.BUDGET_SPENT:
      return errorOf(Code.Unavailable, text, { reason: "BUDGET_SPENT" });
    default:
      return new StateError(Code.FailedPrecondition, text, code);
  }
}
