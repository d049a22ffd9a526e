/**
 * Pages of listings. The cluster's own pages begin at an offset, which shifts when something before it
 * goes; a token here also names the last entry that was given, and the listing goes on after that one.
 */
import type { Page } from "../../client/types.ts";
import { TrilithError } from "../../errors.ts";

export interface PageRequest {
  /** 0: as many as there are. */
  readonly maxEntries: number;
  /** Empty: from the start. */
  readonly startingToken: string;
}

/** A listing in the order of its ids. */
export interface Listing<T> {
  readonly page: (from: number, count: number) => Promise<Page<T>>;
  readonly idOf: (entry: T) => string;
}

export interface TokenPage<T> {
  readonly entries: readonly T[];
  /** Empty: that was all. */
  readonly nextToken: string;
}

function tokenOf(offset: number, lastId: string): string {
  return `${offset}.${lastId}`;
}

function parseToken(token: string): { readonly offset: number; readonly lastId: string } {
  const [, digits, lastId] = /^(\d{1,9})\.([0-9a-f-]{36})$/.exec(token) ?? [];
  if (digits !== undefined && lastId !== undefined) return { offset: Number(digits), lastId };
  throw new TrilithError(
    "Aborted",
    `"${token}" is no token of this listing`,
    "list from the start: without a token",
  );
}

/** Where the listing goes on after an entry: at the offset, unless something has come or gone before it. */
async function offsetAfter<T>(
  { page, idOf }: Listing<T>,
  offset: number,
  lastId: string,
): Promise<number> {
  const [last] = offset === 0 ? [] : (await page(offset - 1, 1)).entries;
  if (last !== undefined && idOf(last) === lastId) return offset;
  const { entries } = await page(0, 0);
  const after = entries.findIndex((entry) => idOf(entry) > lastId);
  return after === -1 ? entries.length : after;
}

/** A page of a listing. Throws `Aborted` for what is no token, `InvalidArgument` for a negative count. */
export async function pageAfter<T>(
  { maxEntries, startingToken }: PageRequest,
  listing: Listing<T>,
): Promise<TokenPage<T>> {
  if (maxEntries < 0) {
    throw new TrilithError("InvalidArgument", `${maxEntries} entries are asked for`);
  }
  let from = 0;
  if (startingToken !== "") {
    const { offset, lastId } = parseToken(startingToken);
    from = await offsetAfter(listing, offset, lastId);
  }
  const { entries, next_token } = await listing.page(from, maxEntries);
  const last = entries.at(-1);
  if (next_token == null || last === undefined) return { entries, nextToken: "" };
  return { entries, nextToken: tokenOf(next_token, listing.idOf(last)) };
}
