/** A client of a Wharfinger broker: leases that renew themselves, an AbortSignal that fires when one breaks, errors by who must act.
 *
 *     const client = new Client();
 *     await client.attempts({ pool: "copies", branch: "main", work: "unit@1234" }, async (lease) => {
 *       await work({ signal: lease.signal });
 *     });
 *
 * `wharfinger/v1` has the messages of the API. */
export { Client, type LeaseOptions } from "./client.js";
export { Credentials, Token, TokenCommand, TokenFile, TokenText, type Environment } from "./credentials.js";
export {
  AddressError,
  Bug,
  CallError,
  CapacityError,
  CredentialsError,
  LeaseBroken,
  NotFound,
  RequestError,
  Resync,
  StateError,
  TlsError,
  Unavailable,
  WharfingerError,
  type CallDetails,
  type LostWhy,
  type Violation,
} from "./errors.js";
export type { Status } from "./keeper.js";
export { Lease, type OutcomeName, type ReleaseOptions } from "./lease.js";
export { settingsOf, type Given, type Settings } from "./settings.js";
export type { Watched } from "./watch.js";
export type { Follow } from "./way.js";
