/** Sources of the caller's token: a text, a file that is read again, a command, a CI product. */

import { execFile } from "node:child_process";
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { inspect } from "node:util";
import { CredentialsError } from "./errors.js";
import { now } from "./time.js";

/** Maximum length of a token, and of an answer with one, in bytes. */
const MAX = 16 * 1024;
/** Maximum time of a command, and of a request to a CI product, in milliseconds. */
const TIME = 10_000;
/** Time for which a token without a readable `exp` is used, in milliseconds. */
const USUAL = 300_000;
const KUBERNETES = "/var/run/secrets/wharfinger/token";

/** The token of a caller. Prints no value. */
export class Token {
  readonly #text: string;

  constructor(text: string, source: string) {
    text = text.trim();
    if (!/^[!-~]+$/.test(text)) throw new CredentialsError(`${source} holds no token`);
    this.#text = text;
  }

  /** Value of the metadata `authorization`. */
  get header(): string {
    return `Bearer ${this.#text}`;
  }

  equals(other: Token): boolean {
    return other.#text === this.#text;
  }

  toString(): string {
    return "Token(..)";
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/** A source of the caller's token. Prints no value. */
export abstract class Credentials {
  /** Returns the present token. Throws `CredentialsError`. */
  abstract token(): Promise<Token>;

  /** Returns another token than the one that a server refused, if there is one. */
  async otherThan(refused: Token): Promise<Token | undefined> {
    try {
      const token = await this.token();
      return token.equals(refused) ? undefined : token;
    } catch (error) {
      if (error instanceof CredentialsError) return undefined;
      throw error;
    }
  }
}

/** A token that never changes. */
export class TokenText extends Credentials {
  readonly #token: Token;

  constructor(text: string, name = "the token") {
    super();
    this.#token = new Token(text, name);
  }

  override token(): Promise<Token> {
    return Promise.resolve(this.#token);
  }
}

/** The token in a file. It is read at each call, so that a file that was replaced counts at once. */
export class TokenFile extends Credentials {
  constructor(readonly path: string) {
    super();
  }

  override async token(): Promise<Token> {
    let handle: number;
    try {
      // A FIFO in place of the file must not hang its reader.
      handle = openSync(this.path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      throw new CredentialsError(`the token file ${this.path} cannot be read: ${words(error)}`, { cause: error });
    }
    try {
      const about = fstatSync(handle);
      if (!about.isFile() || about.size > MAX) {
        throw new CredentialsError(`the token file ${this.path} is no regular file of at most ${MAX} bytes`);
      }
      const bytes = Buffer.alloc(MAX);
      return new Token(bytes.toString("latin1", 0, readSync(handle, bytes)), `the token file ${this.path}`);
    } finally {
      closeSync(handle);
    }
  }
}

/** A token that is used for 80 % of its time, and asked for anew then. One caller at a time asks the source. */
abstract class Timed extends Credentials {
  #present: { until: number; token: Token } | undefined;
  #asking: Promise<Token> | undefined;

  /** Asks the source. Throws `CredentialsError`. */
  protected abstract ask(): Promise<string>;
  /** The name of the source. */
  protected abstract get source(): string;

  override token(): Promise<Token> {
    if (this.#present !== undefined && now() < this.#present.until) return Promise.resolve(this.#present.token);
    this.#asking ??= this.#fresh().finally(() => (this.#asking = undefined));
    return this.#asking;
  }

  override otherThan(refused: Token): Promise<Token | undefined> {
    if (this.#present?.token.equals(refused) === true) this.#present = undefined;
    return super.otherThan(refused);
  }

  async #fresh(): Promise<Token> {
    const text = await this.ask();
    const token = new Token(text, this.source);
    this.#present = { until: now() + useFor(text), token };
    return token;
  }
}

/** The token that a program prints: its name and arguments, without a shell. It has ten seconds. */
export class TokenCommand extends Timed {
  readonly #argv: readonly string[];

  constructor(argv: readonly string[]) {
    super();
    if (argv.length === 0) throw new CredentialsError("the command for a token has no words");
    this.#argv = [...argv];
  }

  protected override get source(): string {
    return `the command ${JSON.stringify(this.#argv[0])} for a token`;
  }

  protected override ask(): Promise<string> {
    const [program = "", ...more] = this.#argv;
    return new Promise((resolve, reject) => {
      const options = { encoding: "latin1", timeout: TIME, killSignal: "SIGKILL", maxBuffer: MAX } as const;
      const child = execFile(program, more, options, (error, output) => {
        if (error === null) resolve(output);
        else reject(new CredentialsError(`${this.source} ${error.killed === true ? `did not end within ${TIME / 1000} s` : `failed: ${error.code ?? error.signal}`}`));
      });
      child.stdin?.end();
    });
  }
}

/** Tokens of a job of GitHub Actions with `permissions: id-token: write`. */
export class GithubToken extends Timed {
  readonly #url: string;
  readonly #bearer: string;

  constructor(url: string, bearer: string, audience: string) {
    super();
    if (!url.startsWith("https://")) throw new CredentialsError("ACTIONS_ID_TOKEN_REQUEST_URL does not begin with https://");
    this.#url = `${url}${url.includes("?") ? "&" : "?"}audience=${encodeURIComponent(audience)}`;
    this.#bearer = bearer;
  }

  protected override get source(): string {
    return "GitHub Actions";
  }

  protected override async ask(): Promise<string> {
    try {
      const headers = { authorization: `bearer ${this.#bearer}`, accept: "application/json" };
      const answer = await fetch(this.#url, { headers, redirect: "error", signal: AbortSignal.timeout(TIME) });
      const found: unknown = await answer.json();
      if (answer.ok && typeof found === "object" && found !== null && "value" in found) return String(found.value);
      throw new Error(`status ${answer.status}`);
    } catch (error) {
      throw new CredentialsError(
        `GitHub Actions gave no token (${words(error)}): does the job have \`permissions: id-token: write\`?`,
        { cause: error },
      );
    }
  }
}

/** Returns the milliseconds for which a token is used. Nothing of it is verified: the server does that. */
function useFor(text: string): number {
  try {
    const claims: unknown = JSON.parse(Buffer.from(text.trim().split(".")[1] ?? "", "base64url").toString());
    if (typeof claims === "object" && claims !== null && "exp" in claims && typeof claims.exp === "number") {
      return Math.min(Math.max(claims.exp * 1000 - Date.now(), 0) * 0.8, 86_400_000);
    }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return USUAL;
}

/** Returns the words of a command: a JSON list, or words with blanks between. There is no shell, and there are no quotes. */
function wordsOf(line: string): string[] {
  if (!line.trimStart().startsWith("[")) return line.split(/\s+/).filter((word) => word !== "");
  let found: unknown;
  try {
    found = JSON.parse(line);
  } catch (error) {
    throw new CredentialsError(`WHARFINGER_AUTH_TOKEN_COMMAND is no list of words: ${words(error)}`);
  }
  if (Array.isArray(found) && found.every((word): word is string => typeof word === "string")) return found;
  throw new CredentialsError('WHARFINGER_AUTH_TOKEN_COMMAND is no list of words: write ["program", "an argument"]');
}

/** Returns the audience of the first server: its host, without a port. */
function audienceOf(server: string): string {
  const authority = (server.split(",")[0] ?? "").trim().replace(/^.*:\/\//, "");
  return `https://${authority.replace(/:[^:]*$/, "")}`;
}

/** The variables of an environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Returns the source of the token that the environment names, as the command line takes it. */
export function credentialsFrom(env: Environment, server: string): Credentials | undefined {
  const product = env["WHARFINGER_OIDC"];
  if (product) return ofProduct(env, product, env["WHARFINGER_AUDIENCE"] || audienceOf(server));
  const file = env["WHARFINGER_AUTH_TOKEN_FILE"];
  if (file) return new TokenFile(file);
  const command = env["WHARFINGER_AUTH_TOKEN_COMMAND"];
  if (command) return new TokenCommand(wordsOf(command));
  const text = env["WHARFINGER_AUTH_TOKEN"];
  return text ? new TokenText(text, "WHARFINGER_AUTH_TOKEN") : undefined;
}

function ofProduct(env: Environment, product: string, audience: string): Credentials {
  const part = (name: string, remedy: string): string => {
    const value = env[name];
    if (!value) throw new CredentialsError(`${name} is not set: ${remedy}`);
    return value;
  };
  switch (product) {
    case "github": {
      const remedy = "give the job `permissions: id-token: write`";
      return new GithubToken(part("ACTIONS_ID_TOKEN_REQUEST_URL", remedy), part("ACTIONS_ID_TOKEN_REQUEST_TOKEN", remedy), audience);
    }
    case "gitlab":
      return new TokenText(part("WHARFINGER_ID_TOKEN", `give the job \`id_tokens: WHARFINGER_ID_TOKEN: aud: ${audience}\``), "WHARFINGER_ID_TOKEN");
    case "buildkite": {
      const argv = ["buildkite-agent", "oidc", "request-token", "--audience", audience];
      return new TokenCommand([...argv, "--claim", "organization_id", "--claim", "pipeline_id"]);
    }
    case "kubernetes":
      return new TokenFile(KUBERNETES);
    default:
      throw new CredentialsError(`WHARFINGER_OIDC is ${JSON.stringify(product)}, and none of github, gitlab, buildkite, kubernetes`);
  }
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
