/** A watch that resumes after restarts of the broker, broken connections and silence. */

import { clone } from "@bufbuild/protobuf";
import { Backoff } from "./backoff.js";
import { CallError, CapacityError, Resync, Unavailable } from "./errors.js";
import { LeaseService, WatchRequestSchema, type WatchRequest } from "./gen/wharfinger/v1/lease_pb.js";
import type { Lease } from "./gen/wharfinger/v1/types_pb.js";
import { durationMs, now, sleep } from "./time.js";
import type { Transport } from "./transport.js";

const DEFAULT_BOOKMARKS = 5_000;
/** Number of missed bookmarks in a row after which a connection is dead. */
const SILENT_BOOKMARKS = 3;
const OPEN_TIMEOUT = 10_000;

/** Latest revision in any answer. Later reads are not older, whichever server answers. */
export class Seen {
  latest = 0n;

  /** Notes the revision of an answer. */
  note(revision: bigint): void {
    if (revision > this.latest) this.latest = revision;
  }

  /** The servers never reached the revision: their database was restored from a backup. */
  forget(): void {
    this.latest = 0n;
  }
}

/** One event of a watch. Everything up to `revision` was delivered; 0: the current state is not complete.
 *
 * * `lease`: a lease in its latest state. The same state may come twice; an older one never does, but after `resync`.
 * * `synced`: the current state is complete, or the changes since the revision of the request.
 * * `bookmark`: nothing else changed.
 * * `resync`: the watch could not resume. The current state follows, with the ended leases that are kept, and then `synced`. A lease
 *   that is not among them has ended and is forgotten. */
export type Watched =
  | { readonly kind: "lease"; readonly revision: bigint; readonly lease: Lease }
  | { readonly kind: "synced" | "bookmark" | "resync"; readonly revision: bigint };

/** Yields changes of leases without a gap, until the signal fires. Resumes by itself; throws `CallError` for what a repetition does not
 * mend. */
export async function* watch(
  transport: Transport,
  seen: Seen,
  request: WatchRequest,
  signal: AbortSignal,
): AsyncGenerator<Watched, void, void> {
  const asked = clone(WatchRequestSchema, request);
  const interval = request.bookmarkInterval === undefined ? 0 : durationMs(request.bookmarkInterval);
  const silence = (interval || DEFAULT_BOOKMARKS) * SILENT_BOOKMARKS;
  const backoff = new Backoff(50, 5_000);
  let revision = request.fromRevision;
  let [began, renewed] = [false, false];
  while (!signal.aborted) {
    asked.fromRevision = revision;
    asked.minRevision = seen.latest > request.minRevision ? seen.latest : request.minRevision;
    let error: CallError | undefined;
    try {
      for await (const message of transport.stream(LeaseService.method.watch, asked, OPEN_TIMEOUT, silence, signal)) {
        backoff.reset();
        [began, renewed] = [true, false];
        if (message.revision > revision) revision = message.revision;
        if (message.event.case === "lease") yield { kind: "lease", revision, lease: message.event.value };
        else if (message.event.case === "bookmark") yield { kind: message.event.value.synced ? "synced" : "bookmark", revision };
        if (signal.aborted) return;
      }
    } catch (thrown) {
      if (!(thrown instanceof CallError)) throw thrown;
      error = thrown;
    }
    if (signal.aborted) return;
    const again = now() + backoff.wait(error?.retryAfterMs);
    let resync = false;
    if (error instanceof Resync) {
      seen.forget();
      resync = true;
    } else if (error?.isUnauthenticated === true && began && !renewed) {
      // The token has ended, or was replaced: one try with the present one.
      renewed = true;
      resync = revision === 0n;
    } else if (error === undefined || error instanceof Unavailable || error instanceof CapacityError) {
      // Cut off within the current state: a delivered lease may have ended since, and only the ended leases show it.
      resync = began && revision === 0n;
    } else {
      throw error;
    }
    if (resync) {
      [revision, began] = [0n, false];
      asked.includeEnded = true;
      yield { kind: "resync", revision: 0n };
    }
    await sleep(again - now(), signal);
  }
}
