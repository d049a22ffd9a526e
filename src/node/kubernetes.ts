/** What a member does in Kubernetes while it leads: one of the cluster's members does, and no other. */
import type { Api } from "../api/app.ts";
import type { Service } from "../control/service.ts";
import type { ReplicatedStore } from "../control/store/replicated-store.ts";
import { kubeClient } from "../kube/client/client.ts";
import type { Access } from "../kube/client/kubeconfig.ts";
import { VolumeCollector } from "../kube/garbage/collector.ts";
import { PoolOperator } from "../kube/operator/operator.ts";
import type { Log } from "../ops/log.ts";
import { ownRest } from "./own-rest.ts";

export interface KubernetesOptions {
  readonly access: Access;
  /** Look for volumes that no claim names, and delete them. */
  readonly sweeps: boolean;
}

/** What runs while this member leads. */
interface Duties {
  readonly pools: PoolOperator;
  readonly volumes: VolumeCollector;
}

/** Operates while this member leads; returns what ends it. */
export function keepKubernetes(
  options: KubernetesOptions,
  store: ReplicatedStore,
  service: Service,
  api: Api,
  log: Log,
): () => Promise<void> {
  const kube = kubeClient({ access: options.access });
  const rest = ownRest(api);
  let duties: Duties | null = null;
  let isEnding = false;
  /** Starts and stops come one after the other, however leadership changes meanwhile. */
  let changes = Promise.resolve();
  const follow = () => {
    changes = changes.then(async () => {
      const leads = store.isLeader() && !isEnding;
      if (leads && duties === null) {
        log("info", "pools are operated from Kubernetes by this node", { server: kube.server });
        duties = {
          pools: new PoolOperator({ kube, rest, log }),
          volumes: new VolumeCollector({ kube, rest, log, sweeps: options.sweeps }),
        };
      } else if (!leads && duties !== null) {
        const former = duties;
        duties = null;
        await Promise.all([former.pools.stop(), former.volumes.stop()]);
      }
    });
  };
  const unlisten = store.onLeadership(follow);
  const unhear = service.onEvent(() => duties?.pools.nudge());
  follow();
  return async () => {
    isEnding = true;
    unlisten();
    unhear();
    follow();
    await changes;
  };
}
