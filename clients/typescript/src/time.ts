/** Times: messages of the API in milliseconds, waits, and timers that may be long. */

import { create } from "@bufbuild/protobuf";
import { DurationSchema, type Duration, type Timestamp } from "@bufbuild/protobuf/wkt";

/** The longest wait of a timer of Node, in milliseconds. */
const LONGEST = 2 ** 31 - 1;

/** Returns a time in milliseconds as a message. */
export function duration(ms: number): Duration {
  const whole = Math.round(ms);
  return create(DurationSchema, { seconds: BigInt(Math.trunc(whole / 1000)), nanos: (whole % 1000) * 1_000_000 });
}

/** Returns a duration in milliseconds. */
export function durationMs(value: Duration): number {
  return Number(value.seconds) * 1000 + value.nanos / 1e6;
}

/** Returns a point in time in milliseconds since the Unix epoch. */
export function timestampMs(value: Timestamp): number {
  return Number(value.seconds) * 1000 + value.nanos / 1e6;
}

/** The monotonic clock, in milliseconds. */
export function now(): number {
  return performance.now();
}

/** Waits, or until the signal fires. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(Math.max(ms, 0), LONGEST));
    signal?.addEventListener("abort", done, { once: true });
  });
}

/** A timer of any length. */
export class Timer {
  #at = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(readonly action: () => void) {}

  get isSet(): boolean {
    return this.#timer !== undefined;
  }

  /** Acts after this time, and not at the time before. */
  set(ms: number): void {
    this.clear();
    this.#at = now() + Math.max(ms, 0);
    this.#arm();
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(): void {
    const left = Math.max(this.#at - now(), 0);
    const act = (): void => {
      this.#timer = undefined;
      this.action();
    };
    this.#timer = setTimeout(left > LONGEST ? () => this.#arm() : act, Math.min(left, LONGEST));
  }
}
