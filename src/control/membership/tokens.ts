/**
 * Tokens: secrets that are shown once. A join token is `tj1.<id>.<fingerprint>.<secret>` and names the
 * authority's certificate by its SHA-256, so that the joiner knows whom to trust before it shows the
 * secret; a token of the HTTP API is `ta1.<id>.<secret>`. The parts are base64url. What is stored is
 * the SHA-256 of the secret; the secret has 256 random bits, so nothing slower is needed.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { TrilithError } from "../../errors.ts";
import type { StoreView } from "../cluster-state.ts";
import type { TokenRecord } from "../model.ts";
import { TOKEN_LIFE_MS_MAX, TOKEN_SECRET_BYTES } from "./limits.ts";

export type TokenKind = TokenRecord["kind"];

/** A token that was read. */
export interface ParsedToken {
  readonly kind: TokenKind;
  readonly id: string;
  /** Hexadecimal; null for tokens of the API. */
  readonly fingerprint: string | null;
  readonly secret: string;
}

const joinToken = /^tj1\.([A-Za-z0-9_-]{12})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})$/;
const apiToken = /^ta1\.([A-Za-z0-9_-]{12})\.([A-Za-z0-9_-]{43})$/;

function digestOf(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

/** A new token, and the record that is stored of it. `InvalidArgument` for an impossible life. */
export function mintToken(
  kind: TokenKind,
  options: {
    /** Of the authority's certificate, hexadecimal. */
    readonly fingerprint: string;
    readonly validMs: number;
    readonly note: string;
    readonly nowMs: number;
  },
): { readonly token: string; readonly record: TokenRecord } {
  if (!(options.validMs > 0 && options.validMs <= TOKEN_LIFE_MS_MAX)) {
    throw new TrilithError(
      "InvalidArgument",
      `a token cannot be valid for ${options.validMs} ms`,
      `choose between 1 s and ${TOKEN_LIFE_MS_MAX / 86_400_000} days`,
    );
  }
  const id = randomBytes(9).toString("base64url");
  const secret = randomBytes(TOKEN_SECRET_BYTES).toString("base64url");
  const fingerprint = Buffer.from(options.fingerprint, "hex").toString("base64url");
  return {
    token: kind === "join" ? `tj1.${id}.${fingerprint}.${secret}` : `ta1.${id}.${secret}`,
    record: {
      id,
      secretSha256: digestOf(secret),
      kind,
      expiresAtMs: Math.floor(options.nowMs + options.validMs),
      note: options.note,
      revision: 0,
    },
  };
}

/** Takes a token apart. `InvalidArgument` when it is none; the text is not repeated anywhere. */
export function parseToken(text: string): ParsedToken {
  const join = joinToken.exec(text);
  if (join !== null) {
    const fingerprint = Buffer.from(join[2]!, "base64url").toString("hex");
    return { kind: "join", id: join[1]!, fingerprint, secret: join[3]! };
  }
  const api = apiToken.exec(text);
  if (api !== null) return { kind: "api", id: api[1]!, fingerprint: null, secret: api[2]! };
  throw new TrilithError(
    "InvalidArgument",
    "this is not a token",
    "tokens begin with `tj1.` (join) or `ta1.` (API) and are printed by `trilith token create`",
  );
}

/** True when the secret is the one that a record or digest was made of. */
export function isSecretOf(secret: string, secretSha256: string): boolean {
  return timingSafeEqual(Buffer.from(digestOf(secret)), Buffer.from(secretSha256.padEnd(64)));
}

/**
 * The record of a token that is valid now. `Unauthenticated` for one that is unknown, wrong, of the other
 * kind, or expired.
 */
export function checkToken(
  tokens: StoreView["tokens"],
  kind: TokenKind,
  token: ParsedToken,
  nowMs: number,
): TokenRecord {
  const record = tokens.get(token.id);
  if (record === undefined || !isSecretOf(token.secret, record.secretSha256)) {
    throw new TrilithError(
      "Unauthenticated",
      "the token is not known here: it is wrong, was used, or has expired long ago",
      "make a new one with `trilith token create`",
    );
  }
  if (record.kind !== kind || token.kind !== kind) {
    throw new TrilithError(
      "Unauthenticated",
      `the token is not for this: its kind is ${record.kind}`,
    );
  }
  if (record.expiresAtMs <= nowMs) {
    throw new TrilithError(
      "Unauthenticated",
      `the token expired at ${new Date(record.expiresAtMs).toISOString()}`,
      "make a new one with `trilith token create`",
    );
  }
  return record;
}
