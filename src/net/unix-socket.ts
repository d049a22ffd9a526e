/** Paths of unix sockets: taken from a process that was killed, never from one that answers. */
import { lstatSync, mkdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { TrilithError } from "../errors.ts";

/** True when somebody answers at a socket's path. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** The error for a place that cannot be listened on; `what` is served there. */
export function placeInUse(what: string, where: string, why: string): TrilithError {
  return new TrilithError(
    "InUse",
    `cannot serve ${what} on ${where}: ${why}`,
    "see who listens there (`ss -ltnpx`), or choose another place",
  );
}

/**
 * Makes the path of a socket free: its folder is made when it is missing (for its owner alone), and a
 * socket that nobody answers at is removed. `InUse` when it is no socket or somebody answers.
 */
export async function freeSocketPath(path: string, what: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const present = lstatSync(path, { throwIfNoEntry: false });
  if (present === undefined) return;
  if (!present.isSocket()) throw placeInUse(what, path, "a file is there that is no socket");
  if (await isAnswered(path)) throw placeInUse(what, path, "another process answers there");
  rmSync(path, { force: true });
}
