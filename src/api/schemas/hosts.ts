/** What hosts tell the cluster. */
import * as v from "valibot";
import { AnyName, Uuid } from "./fields.ts";

const VOLUMES_MAX = 4_096;
const PATHS_MAX = 64;

export const PathReportBody = v.strictObject({
  /** NQN of the host. */
  host: v.pipe(v.string(), v.startsWith("nqn."), v.maxLength(223)),
  /** Its name, for people. */
  name: AnyName,
  volumes: v.pipe(
    v.array(
      v.strictObject({
        volume: Uuid,
        paths: v.pipe(
          v.array(
            v.strictObject({
              address: AnyName,
              port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)),
              state: v.picklist(["live", "lost"]),
            }),
          ),
          v.maxLength(PATHS_MAX),
        ),
      }),
    ),
    v.maxLength(VOLUMES_MAX),
  ),
});
