/** A cluster of the executable that is measured, as the benchmarks of the control plane need it. */
import { Cluster } from "../../support/cluster.ts";
import type { Bench } from "../bench.ts";
import { MEMBERS } from "./limits.ts";

/** Runs `use` with a cluster of three nodes whose data lies in the folder to be measured. */
export async function withCluster<T>(
  bench: Bench,
  use: (cluster: Cluster) => Promise<T>,
): Promise<T> {
  process.env.TRILITH_EXECUTABLE = bench.options.executable;
  const cluster = await Cluster.start(MEMBERS, bench.options.folder);
  try {
    return await use(cluster);
  } catch (error) {
    console.error(cluster.logs(10));
    throw error;
  } finally {
    cluster.endNow();
  }
}
