/** The settings of a client, and where the environment has them: the variables are those of the command line. */

import { readFileSync } from "node:fs";
import type { SecureContextOptions } from "node:tls";
import { credentialsFrom, type Credentials, type Environment } from "./credentials.js";
import { AddressError, TlsError } from "./errors.js";
import { FOLLOWS, type Follow } from "./way.js";

/** Settings of a client. Times are in milliseconds. */
export interface Settings {
  /** `HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`; several servers with commas between. */
  readonly server: string;
  /** The servers to which a refusal may lead that names the leader. */
  readonly follow: Follow;
  /** Source of the caller's token. It is sent to servers with TLS, and to servers on this machine. */
  readonly credentials: Credentials | undefined;
  /** File of the authorities that sign servers' certificates, in PEM. Not set: those that Node trusts. */
  readonly caFile: string | undefined;
  /** File of the caller's certificate, in PEM. Together with `certificateKey`. */
  readonly certificate: string | undefined;
  /** File of the private key of the certificate, in PEM. */
  readonly certificateKey: string | undefined;
  /** Holder of leases that name none. */
  readonly holder: string;
  /** Maximum time to connect. With several servers at most 2 s. */
  readonly connectTimeoutMs: number;
  /** Maximum time of one try of a call, beyond the wait that it asks for. With several servers at most 3 s. */
  readonly callTimeoutMs: number;
  /** Maximum time of all tries of a call while the broker is unavailable, beyond the wait that it asks for. 0: one try. */
  readonly retryForMs: number;
  /** Maximum time of the tries of a release at the end of a lease. Then the lease ends by its TTL. */
  readonly releaseForMs: number;
  /** Maximum time for which a lease is kept after failed work, until the broker has checked the resource. 0: not at all. */
  readonly checkForMs: number;
  /** Takes what a person should know, and no error carries: a release that failed at the end of a lease. */
  readonly warn: (text: string) => void;
}

/** Settings that are given: they go before the environment's. `environment`: the variables in place of `process.env`. */
export type Given = { readonly [K in keyof Settings]?: Settings[K] | undefined } & { readonly environment?: Environment };

/** Returns the settings that the environment has; those that are given go first.
 *
 * Throws `AddressError`, `TlsError` or `CredentialsError` for a variable that makes no sense. */
export function settingsOf(given: Given = {}): Settings {
  const env = given.environment ?? process.env;
  const server = given.server ?? (env["WHARFINGER_SERVER"] || "http://127.0.0.1:7411");
  if (env["WHARFINGER_SERVER_URI"]) {
    throw new TlsError(
      "WHARFINGER_SERVER_URI is set, and this client compares host names alone: unset it, and give the servers certificates with their host names",
    );
  }
  const settings: Settings = {
    server,
    follow: given.follow ?? followOf(env["WHARFINGER_FOLLOW_LEADER"] || "listed"),
    credentials: "credentials" in given ? given.credentials : credentialsFrom(env, server),
    caFile: given.caFile ?? (env["WHARFINGER_CA_FILE"] || undefined),
    certificate: given.certificate ?? (env["WHARFINGER_CERTIFICATE"] || undefined),
    certificateKey: given.certificateKey ?? (env["WHARFINGER_CERTIFICATE_KEY"] || undefined),
    holder: given.holder ?? env["WHARFINGER_HOLDER"] ?? "",
    connectTimeoutMs: given.connectTimeoutMs ?? 5_000,
    callTimeoutMs: given.callTimeoutMs ?? 20_000,
    retryForMs: given.retryForMs ?? 30_000,
    releaseForMs: given.releaseForMs ?? 10_000,
    checkForMs: given.checkForMs ?? 10_000,
    warn: given.warn ?? ((text) => process.emitWarning(text, "WharfingerWarning")),
  };
  if ((settings.certificate === undefined) !== (settings.certificateKey === undefined)) {
    throw new TlsError(
      "a certificate needs its private key, and a key its certificate: set WHARFINGER_CERTIFICATE and WHARFINGER_CERTIFICATE_KEY",
    );
  }
  return settings;
}

function followOf(text: string): Follow {
  const follow = FOLLOWS.find((follow) => follow === text);
  if (follow === undefined) throw new AddressError(`WHARFINGER_FOLLOW_LEADER is none of ${FOLLOWS.join(", ")}`);
  return follow;
}

/** Reads authorities, private key and certificate. Throws `TlsError`. */
export function tlsOf(settings: Settings): SecureContextOptions {
  const found: SecureContextOptions = { minVersion: "TLSv1.2" };
  for (const [name, path] of [
    ["ca", settings.caFile],
    ["cert", settings.certificate],
    ["key", settings.certificateKey],
  ] as const) {
    if (path !== undefined) found[name] = pem(path);
  }
  return found;
}

function pem(path: string): Buffer {
  let data: Buffer;
  try {
    data = readFileSync(path);
  } catch (error) {
    throw new TlsError(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  if (!data.includes("-----BEGIN ")) throw new TlsError(`${path} holds no PEM`);
  return data;
}
