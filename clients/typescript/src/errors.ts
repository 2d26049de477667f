/** Why a call failed, by who must act. */

import { Code, ConnectError } from "@connectrpc/connect";
import { durationMs } from "./time.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { Cause, Lease } from "./gen/wharfinger/v1/types_pb.js";

/** Base of all errors of this package. */
export class WharfingerError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The address of a broker makes no sense. The caller must act. */
export class AddressError extends WharfingerError {}

/** A certificate, key or list of the client cannot be used. The caller must act. */
export class TlsError extends WharfingerError {}

/** There is no token to send. The caller must act. The text holds no token. */
export class CredentialsError extends WharfingerError {}

/** One field of a request, and what is wrong with it. */
export interface Violation {
  /** Path of the field in the request's message. */
  readonly field: string;
  /** The mistake, and what would be right. */
  readonly description: string;
}

/** What a status says beside its code and message. */
export interface CallDetails {
  /** The broker's stable reason, such as `UNKNOWN_POOL`. Not set: the status is not the broker's own. */
  readonly reason?: string;
  /** Values of the reason, such as `leader`. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** The fields at fault. */
  readonly violations?: readonly Violation[];
  /** Time after which another try is worth it, in milliseconds. */
  readonly retryAfterMs?: number;
}

/** A call that the broker refused, or that did not reach it. */
export class CallError extends WharfingerError {
  /** The broker's stable reason, such as `UNKNOWN_POOL`. Not set: the status is not the broker's own. */
  readonly reason: string | undefined;
  /** Values of the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields at fault. */
  readonly violations: readonly Violation[];
  /** Time after which another try is worth it, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(
    /** Status code of gRPC. */
    readonly code: Code,
    message: string,
    details: CallDetails = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.reason = details.reason;
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryAfterMs = details.retryAfterMs;
  }

  /** Whether the server refused the caller's token, or had none: a fresh one may do. */
  get isUnauthenticated(): boolean {
    return this.code === Code.Unauthenticated;
  }
}

/** The request is wrong, now and always. The caller must act; `violations` says where. */
export class RequestError extends CallError {}

/** There is no such lease, resource or pool, or no longer. The caller must act. */
export class NotFound extends CallError {}

/** It is not the caller's, or not in a state for it: the lease has ended, the request id was used before. */
export class StateError extends CallError {}

/** No capacity now, or a limit was reached. Come back after `retryAfterMs`, or queue. */
export class CapacityError extends CallError {}

/** A watch wants to resume from a revision that the broker no longer has: start from the current state. */
export class Resync extends CallError {}

/** The broker cannot be reached or cannot answer now. The operator must act if it stays so.
 *
 * What was asked may have been done, so repeat it as it is. */
export class Unavailable extends CallError {}

/** A mistake of the broker or of this client. Report it. */
export class Bug extends CallError {}

type Kind = new (code: Code, message: string, details?: CallDetails, options?: ErrorOptions) => CallError;

/** Who acts, by the status code. All others are bugs. */
const KINDS: ReadonlyMap<Code, Kind> = new Map<Code, Kind>([
  [Code.InvalidArgument, RequestError],
  [Code.NotFound, NotFound],
  [Code.AlreadyExists, StateError],
  [Code.PermissionDenied, StateError],
  [Code.Unauthenticated, StateError],
  [Code.FailedPrecondition, StateError],
  [Code.ResourceExhausted, CapacityError],
  [Code.OutOfRange, Resync],
  [Code.Unavailable, Unavailable],
  [Code.DeadlineExceeded, Unavailable],
  [Code.Canceled, Unavailable],
  [Code.Aborted, Unavailable],
]);

/** Returns the error for a status. `sent`: a server sent the status, no broken connection. */
export function errorOf(code: Code, message: string, details: CallDetails = {}, sent = true, cause?: unknown): CallError {
  const kind = sent ? (KINDS.get(code) ?? Bug) : Unavailable;
  const text =
    kind === Unavailable ? `the broker cannot be reached or does not answer now: ${message}` : kind === Bug ? `the broker failed: ${message}` : message;
  return new kind(code, text, details, cause === undefined ? undefined : { cause });
}

/** Returns the error for what the transport threw. */
export function errorFrom(thrown: unknown): CallError {
  if (thrown instanceof CallError) return thrown;
  const error = ConnectError.from(thrown);
  const info = error.findDetails(ErrorInfoSchema)[0];
  const retry = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const details: CallDetails = {
    ...(info === undefined ? {} : { reason: info.reason, metadata: info.metadata }),
    violations: error.findDetails(BadRequestSchema).flatMap((fields) => fields.fieldViolations.map(({ field, description }) => ({ field, description }))),
    ...(retry === undefined ? {} : { retryAfterMs: durationMs(retry) }),
  };
  return errorOf(error.code, error.rawMessage, details, error.metadata.has("grpc-status"), thrown);
}

/** Why a lease is lost. `ended`: the broker ended it. `forgotten`: the broker no longer knows it. `no-contact`: no renewal succeeded
 * for a whole TTL, and the broker may have given the slot away. */
export type LostWhy = "ended" | "forgotten" | "no-contact";

/** The lease was lost under its holder, who must stop: run the work again elsewhere, unless `retry` is false. */
export class LeaseBroken extends WharfingerError {
  constructor(
    /** Last known state of the lease. */
    readonly lease: Lease,
    readonly why: LostWhy,
    message: string,
    /** Resource that the lease was on. */
    readonly resourceId: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** Why it broke, nearest cause first, root cause last. */
  get causes(): readonly Cause[] {
    return this.lease.causes;
  }

  /** `WORK` if the root of the break is the work itself. */
  get fault(): "WORK" | "RESOURCE" {
    return this.causes.at(-1)?.reason === "WORK_BLAMED" ? "WORK" : "RESOURCE";
  }

  /** Whether the work is worth another try elsewhere. */
  get retry(): boolean {
    return this.fault !== "WORK";
  }

  /** The same break, with the error of the body as its cause. */
  with(cause: unknown): LeaseBroken {
    return cause === this ? this : new LeaseBroken(this.lease, this.why, this.message, this.resourceId, { cause });
  }
}
