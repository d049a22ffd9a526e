/** A published volume of a cluster that is measured, and the waiting for it. */
import { randomUUID } from "node:crypto";
import type { Volume, VolumePath } from "../../../src/client/types.ts";
import { type Cluster, type ClusterNode, waitUntil } from "../../support/cluster.ts";
import { MEMBERS } from "./limits.ts";

export class PublishedVolume {
  readonly cluster: Cluster;
  readonly uuid = randomUUID();
  readonly replicas: number;

  constructor(cluster: Cluster, replicas: number) {
    this.cluster = cluster;
    this.replicas = replicas;
  }

  /** Makes the volume and serves it from a follower; resolves when it has all its paths. */
  async publish(bytes: number): Promise<void> {
    const { rest } = this.cluster;
    const policy = { self_heal: true };
    const { replicas } = this;
    await rest.createVolume(this.uuid, { size: bytes, replicas, thin: false, policy });
    const leader = await this.cluster.leader();
    const node = this.cluster.nodes.find((one) => one !== leader)!;
    const to = { protocol: "nvmf", node: node.name, publish_context: {} } as const;
    await rest.publishVolume(this.uuid, to);
    await this.isReady();
  }

  paths(): Promise<VolumePath[]> {
    return this.cluster.rest.paths(this.uuid);
  }

  async target(): Promise<ClusterNode> {
    const { state } = await this.cluster.rest.volume(this.uuid);
    return this.cluster.node(state.target!.node);
  }

  /** Waits for a state of the volume. */
  until(what: string, isSo: (volume: Volume) => boolean): Promise<Volume> {
    return this.cluster.volumeUntil(what, this.uuid, isSo);
  }

  isWhole(): Promise<Volume> {
    return this.until("all copies", ({ state }) => {
      const children = state.target?.children ?? [];
      const areAll = children.length === this.replicas;
      return state.status === "Online" && areAll && children.every((c) => c.state === "Online");
    });
  }

  /** Waits until all copies and all paths are there. */
  async isReady(): Promise<void> {
    await this.isWhole();
    await waitUntil(
      "all paths",
      () => this.paths(),
      (paths) => paths.length === MEMBERS && paths.every(({ state }) => state !== "pending"),
    );
  }
}
