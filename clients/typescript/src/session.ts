/** The connection to one server. It stands once the server has sent its settings: one that accepts connections and answers nothing is
 * not connected, so that a call is tried elsewhere before anything was sent. */

import * as http2 from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";

/** A connection that is made anew when it has ended. */
export class Session {
  readonly authority: string;
  #conn: http2.ClientHttp2Session | undefined;
  #connecting: Promise<http2.ClientHttp2Session> | undefined;
  #error: unknown;
  /** All that are not closed, also those that take no more calls. */
  readonly #all = new Set<http2.ClientHttp2Session>();

  constructor(
    url: string,
    readonly options: http2.ClientSessionOptions | http2.SecureClientSessionOptions,
    readonly pingIntervalMs: number,
    readonly pingTimeoutMs: number,
  ) {
    this.authority = new URL(url).origin;
  }

  state(): "closed" | "connecting" | "open" | "error" {
    if (this.#conn !== undefined) return "open";
    if (this.#connecting !== undefined) return "connecting";
    return this.#error === undefined ? "closed" : "error";
  }

  error(): unknown {
    return this.#error;
  }

  async connect(): Promise<"open" | "error"> {
    try {
      await this.#standing();
      return "open";
    } catch {
      return "error";
    }
  }

  async request(
    method: string,
    path: string,
    headers: http2.OutgoingHttpHeaders,
    options: Omit<http2.ClientSessionRequestOptions, "signal">,
  ): Promise<http2.ClientHttp2Stream> {
    const conn = await this.#standing();
    const stream = conn.request({ ...headers, ":method": method, ":path": path }, options);
    // A connection without calls keeps no process.
    conn.ref();
    streams.set(conn, (streams.get(conn) ?? 0) + 1);
    stream.once("close", () => {
      const left = (streams.get(conn) ?? 1) - 1;
      streams.set(conn, left);
      if (left === 0 && !conn.destroyed) conn.unref();
    });
    return stream;
  }

  notifyResponseByteRead(): void {
    // Pings do not depend on it.
  }

  /** Ends the connection and its calls. */
  abort(reason?: Error): void {
    const why = reason ?? new ConnectError("the client is closed", Code.Canceled);
    this.#error = why;
    this.#conn = undefined;
    for (const conn of [...this.#all]) conn.destroy(why);
  }

  #standing(): Promise<http2.ClientHttp2Session> {
    const conn = this.#conn;
    if (conn !== undefined && !conn.closed && !conn.destroyed) return Promise.resolve(conn);
    this.#connecting ??= this.#make().finally(() => (this.#connecting = undefined));
    return this.#connecting;
  }

  #make(): Promise<http2.ClientHttp2Session> {
    return new Promise((resolve, reject) => {
      const conn = http2.connect(this.authority, this.options);
      this.#all.add(conn);
      const pings = setInterval(() => this.#ping(conn), this.pingIntervalMs);
      pings.unref();
      const leave = (): void => {
        if (this.#conn === conn) this.#conn = undefined;
      };
      const fail = (error: unknown): void => {
        leave();
        this.#error = ConnectError.from(error, Code.Unavailable);
        reject(this.#error);
      };
      conn.once("remoteSettings", () => {
        if (conn.closed || conn.destroyed) return;
        this.#conn = conn;
        this.#error = undefined;
        if ((streams.get(conn) ?? 0) === 0) conn.unref();
        resolve(conn);
      });
      conn.on("error", fail);
      // Calls under way go on, and new ones have another connection.
      conn.on("goaway", leave);
      conn.once("close", () => {
        clearInterval(pings);
        this.#all.delete(conn);
        leave();
        reject(ConnectError.from(this.#error ?? new Error("the connection was closed"), Code.Unavailable));
      });
    });
  }

  #ping(conn: http2.ClientHttp2Session): void {
    if (conn.closed || conn.destroyed || conn.connecting) return;
    const timer = setTimeout(() => conn.destroy(new ConnectError("the server answers no ping", Code.Unavailable)), this.pingTimeoutMs);
    timer.unref();
    conn.ping(() => clearTimeout(timer));
  }
}

/** Number of calls under way. */
const streams = new WeakMap<http2.ClientHttp2Session, number>();
