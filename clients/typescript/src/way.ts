/** The choice among several servers.
 *
 * Calls go to the server that answered the last one. A server that follows and does not forward refuses with the leader's address, and
 * the same call goes there at once if the client may follow it: a refused call did nothing. A call whose connection was never
 * established is retried as well. A later failure is returned, and the next call goes to the next server.
 *
 * The rules are those of the Rust client; `tests/clients/way.json` has them as a table that all clients pass. */

import { parseAddress, type ServerAddress } from "./address.js";
import { AddressError, Unavailable, type CallError } from "./errors.js";

/** Maximum number of servers, configured or named by other servers. */
const MOST = 32;

/** The servers to which a refusal may lead that names the leader. A stranger that answers as a server could name any.
 *
 * `listed`: those of the client's list. `same-hosts`: those on the hosts of the list, on any port. `anywhere`: all, for closed networks. */
export type Follow = "listed" | "same-hosts" | "anywhere";

/** The values of `Follow`. */
export const FOLLOWS: readonly Follow[] = ["listed", "same-hosts", "anywhere"];

/** The known servers, and which of them is the present one. One for calls, and one for watches. */
export class Way {
  readonly servers: ServerAddress[];
  readonly #hosts: ReadonlySet<string>;
  at: number;

  constructor(
    servers: readonly ServerAddress[],
    readonly follow: Follow,
    first = 0,
  ) {
    this.servers = [...servers];
    this.#hosts = new Set(servers.flatMap((server) => server.host ?? []));
    this.at = first % this.servers.length;
  }

  /** The present server. */
  get server(): ServerAddress {
    const server = this.servers[this.at];
    if (server === undefined) throw new RangeError("there is no such server");
    return server;
  }

  /** Goes on to the next server, unless another call did so already. */
  goOn(since: number): void {
    if (this.at === since) this.at = (since + 1) % this.servers.length;
  }

  /** Returns whether the call did nothing and goes to another server, which is then the present one. */
  judge(error: CallError, at: number, dead: readonly number[]): boolean {
    if (!(error instanceof Unavailable)) return false;
    const refusal = error.reason === "NOT_LEADER";
    const leader = refusal ? error.metadata["leader"] : undefined;
    if (leader !== undefined && this.#goTo(leader, dead)) return true;
    this.goOn(at);
    return refusal;
  }

  /** Goes to the server that leads, and adds it if it may be followed. One of `dead` is refused. */
  #goTo(leader: string, dead: readonly number[]): boolean {
    let told: ServerAddress;
    try {
      told = parseAddress(leader);
    } catch (error) {
      if (error instanceof AddressError) return false;
      throw error;
    }
    const known = this.servers.findIndex((server) => server.authority === told.authority);
    if (known >= 0) {
      if (dead.includes(known)) return false;
      this.at = known;
      return true;
    }
    // A server names no file of this machine, and leads from no server with TLS to one without.
    const exposed = !told.isPrivate && this.servers.some((server) => server.isPrivate);
    if (told.host === undefined || exposed || !this.#mayFollow(told.host) || this.servers.length >= MOST) return false;
    this.servers.push(told);
    this.at = this.servers.length - 1;
    return true;
  }

  #mayFollow(host: string): boolean {
    return this.follow === "anywhere" || (this.follow === "same-hosts" && this.#hosts.has(host));
  }
}
