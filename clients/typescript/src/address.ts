/** Addresses of servers. */

import { BlockList, isIP } from "node:net";
import { AddressError } from "./errors.js";

const AUTHORITY = /^(?<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?):(?<port>[0-9]{1,5})$/;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** The address of one server. */
export class ServerAddress {
  constructor(
    /** The canonical form: `HOST:PORT`, or `unix:///PATH`. */
    readonly authority: string,
    /** The host. Not set: the address is a Unix socket. */
    readonly host: string | undefined,
    /** Whether it has TLS. */
    readonly secure: boolean,
  ) {}

  /** The path, if the address is a Unix socket of this machine. */
  get socket(): string | undefined {
    return this.host === undefined ? this.authority.slice("unix://".length) : undefined;
  }

  /** Whether nothing between reads along: there is TLS, or nothing between. */
  get isPrivate(): boolean {
    return this.secure || this.host === undefined;
  }

  /** Whether the address is of this machine, whatever name servers say. */
  get isHere(): boolean {
    const host = (this.host ?? "").replace(/^\[|\]$/g, "");
    const version = isIP(host);
    return version !== 0 && LOOPBACK.check(host, version === 4 ? "ipv4" : "ipv6");
  }

  /** The address as Node connects to it. */
  get url(): string {
    return this.host === undefined ? "http://localhost" : `${this.secure ? "https" : "http"}://${this.authority}`;
  }
}

/** Reads `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`. Throws `AddressError`. */
export function parseAddress(text: string): ServerAddress {
  text = text.trim();
  const at = text.indexOf("://");
  const [scheme, rest] = at < 0 ? ["http", text] : [text.slice(0, at), text.slice(at + 3)];
  if (scheme === "unix" && rest.startsWith("/") && !rest.endsWith("/")) {
    return new ServerAddress(`unix://${rest}`, undefined, false);
  }
  const { host, port } = AUTHORITY.exec(rest.endsWith("/") ? rest.slice(0, -1) : rest)?.groups ?? {};
  if ((scheme !== "http" && scheme !== "https") || host === undefined || Number(port) > 65535) {
    throw new AddressError(
      `${JSON.stringify(text)} is no address of a broker: write HOST:PORT or https://HOST:PORT, several with commas between`,
    );
  }
  return new ServerAddress(`${host}:${Number(port)}`, host, scheme === "https");
}

/** Reads addresses with commas between. Throws `AddressError`. */
export function parseAddresses(text: string): ServerAddress[] {
  return text.split(",").map(parseAddress);
}
