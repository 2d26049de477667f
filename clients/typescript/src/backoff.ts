/** Waits between attempts: each longer than the one before, and random, so that many do not try at the same time. */

import { randomBytes, randomInt } from "node:crypto";

/** Returns a random part of a time, from `least` (0 to 1) of it to all. */
export function jittered(ms: number, least: number): number {
  return ms * (least + (1 - least) * (randomInt(2 ** 32) / 2 ** 32));
}

/** Returns a random index. */
export function anywhere(count: number): number {
  return randomInt(Math.max(count, 1));
}

/** Returns an id for a request that no other request has. */
export function newRequestId(): string {
  return randomBytes(16).toString("hex");
}

/** Waits that grow from `first` to `longest`, in milliseconds. Each is a random part of its span, between a half and all of it. */
export class Backoff {
  #next: number;

  constructor(
    readonly first: number,
    readonly longest: number,
  ) {
    this.#next = first;
  }

  /** Returns the next wait: not shorter than what the other side asked for, but at most the longest. */
  wait(askedMs = 0): number {
    const wait = Math.max(jittered(this.#next, 0.5), Math.min(askedMs, this.longest));
    this.#next = Math.min(this.#next * 2, this.longest);
    return wait;
  }

  /** Begins again with the first wait, after a success. */
  reset(): void {
    this.#next = this.first;
  }
}
