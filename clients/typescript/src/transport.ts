/** Connections to the servers, and calls over them. Each server has one connection for calls and one for watches. */

import { connect as connectSocket } from "node:net";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { toBinary, type DescMessage, type DescMethodServerStreaming, type DescMethodUnary, type MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport as GrpcTransport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { parseAddresses, type ServerAddress } from "./address.js";
import { anywhere } from "./backoff.js";
import type { Token } from "./credentials.js";
import { CredentialsError, RequestError, TlsError, Unavailable, errorFrom, errorOf } from "./errors.js";
import { Session } from "./session.js";
import { tlsOf, type Settings } from "./settings.js";
import { now, sleep } from "./time.js";
import { Way } from "./way.js";

/** Maximum length of a message in bytes; the broker has the same limit. */
const MAX_MESSAGE = 16 * 1024 * 1024;
/** Limits of two times where there are several servers, in milliseconds. */
const SEVERAL_CONNECT = 2_000;
const SEVERAL_CALL = 3_000;
/** Maximum number of calls at once, without those that wait for leases. */
const PLACES = 64;
/** A call with a longer time limit waits for leases, in milliseconds. */
const LONG = 30_000;
/** Time for which a server that could not be reached is not tried again, where there are others, in milliseconds. */
const AGAIN_AFTER = 500;

interface Connection {
  readonly session: Session;
  readonly grpc: GrpcTransport;
  failedAt: number;
}

/** Calls to one of several servers. Connects at the first call. */
export class Transport {
  readonly several: boolean;
  readonly connectTimeoutMs: number;
  readonly callTimeoutMs: number;
  readonly #settings: Settings;
  readonly #calls: Way;
  readonly #watches: Way;
  readonly #connections = new Map<string, Connection>();
  readonly #queue: (() => void)[] = [];
  readonly #tls: SecureContextOptions | undefined;
  #places = PLACES;
  #closed = false;

  constructor(settings: Settings) {
    const servers = parseAddresses(settings.server);
    this.#settings = settings;
    this.several = servers.length > 1;
    this.connectTimeoutMs = this.several ? Math.min(settings.connectTimeoutMs, SEVERAL_CONNECT) : settings.connectTimeoutMs;
    this.callTimeoutMs = this.several ? Math.min(settings.callTimeoutMs, SEVERAL_CALL) : settings.callTimeoutMs;
    this.#calls = new Way(servers, settings.follow);
    // Watches begin at a random server, so that those of many clients spread over the servers.
    this.#watches = new Way(servers, settings.follow, anywhere(servers.length));
    this.#tls = servers.some((server) => server.secure) ? checked(tlsOf(settings)) : undefined;
  }

  /** Number of known servers. */
  get count(): number {
    return this.#calls.servers.length;
  }

  #connection(server: ServerAddress, watches: boolean): Connection {
    if (this.#closed) throw errorOf(Code.FailedPrecondition, "the client is closed");
    const key = `${watches ? "watches" : "calls"} ${server.authority}`;
    let connection = this.#connections.get(key);
    if (connection === undefined) {
      const [pingIntervalMs, pingTimeoutMs] = this.several ? ([5_000, 3_000] as const) : ([20_000, 10_000] as const);
      const path = server.socket;
      const options = {
        ...(server.secure ? (this.#tls ?? checked(tlsOf(this.#settings))) : {}),
        ...(path === undefined ? {} : { createConnection: () => connectSocket(path) }),
      };
      const session = new Session(server.url, options, pingIntervalMs, pingTimeoutMs);
      const limits = { readMaxBytes: MAX_MESSAGE, writeMaxBytes: MAX_MESSAGE, acceptCompression: [] };
      connection = { session, grpc: createGrpcTransport({ baseUrl: server.url, sessionManager: session, ...limits }), failedAt: -Infinity };
      this.#connections.set(key, connection);
    }
    return connection;
  }

  /** Waits for the connection. Returns why there is none. */
  async #connected(connection: Connection, server: ServerAddress, ms: number): Promise<Unavailable | undefined> {
    const { session } = connection;
    if (this.several && session.state() === "error" && now() < connection.failedAt + AGAIN_AFTER) {
      return this.#unreached(server, session.error());
    }
    const limit = new AbortController();
    try {
      const state = await Promise.race([session.connect(), sleep(ms, limit.signal)]);
      if (state === "open") return undefined;
      if (state === undefined) {
        session.abort(new ConnectError(`no connection within ${Math.round(ms)} ms`, Code.Unavailable));
      }
      connection.failedAt = now();
      return this.#unreached(server, session.error());
    } finally {
      limit.abort();
    }
  }

  #unreached(server: ServerAddress, reason: unknown): Unavailable {
    const text = reason instanceof ConnectError ? reason.rawMessage : "no connection";
    return errorOf(Code.Unavailable, `${server.authority}: ${text}`, {}, false, reason) as Unavailable;
  }

  /** The token for a server. Without TLS others could read it on its way to another machine. */
  async #sign(server: ServerAddress): Promise<Token | undefined> {
    const token = await this.#settings.credentials?.token();
    if (token !== undefined && !server.isPrivate && !server.isHere) {
      throw new CredentialsError(
        `the token is not sent to ${server.authority}: there is no TLS, and others could read it; write https://${server.authority}`,
      );
    }
    return token;
  }

  /** Makes one call with one answer. Throws `CallError`; the caller decides whether to repeat it. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    timeoutMs: number,
  ): Promise<MessageShape<O>> {
    checkMessage(method.input, request);
    const end = now() + timeoutMs;
    const way = this.#calls;
    const dead: number[] = [];
    let left = 2 * way.servers.length;
    let renewed = false;
    for (;;) {
      const [at, server] = [way.at, way.server];
      const token = await this.#sign(server);
      const connection = this.#connection(server, false);
      left -= 1;
      const unreached = await this.#connected(connection, server, Math.min(end - now(), this.connectTimeoutMs));
      if (unreached !== undefined) {
        way.goOn(at);
        dead.push(at);
        if (way.servers.length > 1 && left > 0) continue;
        throw unreached;
      }
      try {
        return await this.#one(connection, method, request, Math.ceil(Math.max(end - now(), 1)), token);
      } catch (thrown) {
        const error = errorFrom(thrown);
        const refused = error.isUnauthenticated && token !== undefined && !renewed;
        if (refused && (await this.#settings.credentials?.otherThan(token)) !== undefined) {
          renewed = true;
          continue;
        }
        if (way.judge(error, at, dead) && left > 0) continue;
        throw error;
      }
    }
  }

  /** One call. It is never cancelled: servers take many streams that are reset for an attack, and close the connection under all
   * others. */
  async #one<I extends DescMessage, O extends DescMessage>(
    connection: Connection,
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    timeoutMs: number,
    token: Token | undefined,
  ): Promise<MessageShape<O>> {
    // A call that waits for a lease takes no place.
    const takes = timeoutMs <= LONG;
    if (takes) await this.#enter();
    try {
      return (await connection.grpc.unary(method, undefined, timeoutMs, headers(token), request)).message;
    } finally {
      if (takes) this.#leave();
    }
  }

  async #enter(): Promise<void> {
    if (this.#places > 0) this.#places -= 1;
    else await new Promise<void>((resolve) => this.#queue.push(resolve));
  }

  #leave(): void {
    const next = this.#queue.shift();
    if (next === undefined) this.#places += 1;
    else next();
  }

  /** Yields the messages of one stream. Ends without an error where the server or `signal` ends it. Throws `CallError`, also after
   * `silenceMs` without a message. */
  async *stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    openMs: number,
    silenceMs: number,
    signal: AbortSignal,
  ): AsyncGenerator<MessageShape<O>, void, void> {
    const way = this.#watches;
    const [at, server] = [way.at, way.server];
    const token = await this.#sign(server);
    const connection = this.#connection(server, true);
    const unreached = await this.#connected(connection, server, this.connectTimeoutMs);
    if (unreached !== undefined) {
      way.goOn(at);
      throw unreached;
    }
    const abort = new AbortController();
    const end = (): void => abort.abort();
    let silent = false;
    const wait = (ms: number): NodeJS.Timeout =>
      setTimeout(() => {
        silent = true;
        end();
      }, ms);
    let timer = wait(openMs);
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    try {
      const answer = await connection.grpc.stream(method, abort.signal, undefined, headers(token), only(request));
      clearTimeout(timer);
      timer = wait(silenceMs);
      for await (const message of answer.message) {
        clearTimeout(timer);
        yield message;
        timer = wait(silenceMs);
      }
    } catch (thrown) {
      if (signal.aborted) return;
      if (silent) {
        way.goOn(at);
        throw errorOf(Code.Unavailable, `${server.authority} is silent`, {}, false);
      }
      const error = errorFrom(thrown);
      way.judge(error, at, []);
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      end();
    }
  }

  /** Closes the connections. */
  close(): void {
    this.#closed = true;
    for (const { session } of this.#connections.values()) session.abort();
    this.#connections.clear();
  }
}

/** Throws `RequestError` for a value that its message has no place for, such as 1.5 in an integer. */
export function checkMessage<I extends DescMessage>(schema: I, message: MessageShape<I>): void {
  try {
    toBinary(schema, message);
  } catch (error) {
    throw new RequestError(Code.InvalidArgument, `the request cannot be sent: ${text(error)}`, {}, { cause: error });
  }
}

async function* only<T>(message: T): AsyncGenerator<T> {
  yield message;
}

function headers(token: Token | undefined): Headers {
  return new Headers(token === undefined ? {} : { authorization: token.header });
}

/** The files, if they can be used. */
function checked(tls: SecureContextOptions): SecureContextOptions {
  try {
    createSecureContext(tls);
  } catch (error) {
    throw new TlsError(`the certificates cannot be used: ${text(error)}`, { cause: error });
  }
  return tls;
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
