/** The demonstration's volume: three replicas, the nexus over them, and what is done to both. */
import { randomUUID } from "node:crypto";
import type { Recorder } from "../engine/recorder.ts";
import type { Nexus } from "../engine/rpc/nexuses.ts";
import { TrilithError } from "../errors.ts";
import type { DemoNode } from "./node.ts";

const POLL_MS = 50;
const PATIENCE_MS = 120_000;

/** Asks until `isSo`, and returns the answer. */
export async function until<T>(
  what: string,
  ask: () => Promise<T>,
  isSo: (answer: T) => boolean,
): Promise<T> {
  const untilMs = performance.now() + PATIENCE_MS;
  for (;;) {
    const answer = await ask();
    if (isSo(answer)) return answer;
    if (performance.now() > untilMs) {
      throw new TrilithError("Timeout", `${what}: not within ${PATIENCE_MS / 1000} s`);
    }
    await Bun.sleep(POLL_MS);
  }
}

interface Copy {
  readonly node: DemoNode;
  readonly replicaUuid: string;
  /** As a nexus on another node reaches it. */
  remoteUri: string;
}

export class DemoVolume {
  readonly uuid = randomUUID();
  readonly sizeBytes: number;
  readonly #recorder: Recorder;
  readonly #copies: Copy[] = [];
  #epoch = 0;
  #nexusUuid = "";
  #nexusNode: DemoNode;

  constructor(sizeBytes: number, recorder: Recorder, nexusNode: DemoNode) {
    this.sizeBytes = sizeBytes;
    this.#recorder = recorder;
    this.#nexusNode = nexusNode;
  }

  /** Makes a replica on each node; only the nexus's node may connect to it. */
  async makeReplicas(nodes: readonly DemoNode[]): Promise<void> {
    for (const node of nodes) {
      const { uuid, uri } = await node.rpc.createReplica({
        uuid: randomUUID(),
        poolName: node.poolName,
        sizeBytes: this.sizeBytes,
        thin: true,
        volumeUuid: this.uuid,
        share: "nvmf",
        allowedHosts: [this.#nexusNode.hostNqn],
      });
      this.#copies.push({ node, replicaUuid: uuid, remoteUri: uri });
    }
  }

  /** A child's URI as the nexus opens it: by call on its own node, over NVMe/TCP elsewhere. */
  #childUri(copy: Copy): string {
    return copy.node === this.#nexusNode ? `bdev:///${copy.replicaUuid}` : copy.remoteUri;
  }

  /** URI of the child on a node. */
  childOn(node: DemoNode): string {
    return this.#childUri(this.#copies.find((copy) => copy.node === node)!);
  }

  /** Opens the nexus, with a higher epoch each time, and publishes it. Returns the URI for hosts. */
  async publish(): Promise<string> {
    this.#epoch++;
    this.#nexusUuid = randomUUID();
    const healthy = await this.#recordedHealthy();
    const { rpc } = this.#nexusNode;
    await rpc.createNexus({
      uuid: this.#nexusUuid,
      volumeUuid: this.uuid,
      epoch: this.#epoch,
      children: this.#copies.map((copy) => {
        const uri = this.#childUri(copy);
        return { uri, healthy: healthy === undefined || healthy.has(uri) };
      }),
    });
    return (await rpc.shareNexusNvmf({ uuid: this.#nexusUuid })).deviceUri;
  }

  /** Children that the record calls healthy; undefined before the first publish. */
  async #recordedHealthy(): Promise<Set<string> | undefined> {
    if (this.#epoch === 1) return undefined;
    const { children } = await this.#recorder.get(this.uuid);
    return new Set(children.filter(({ healthy }) => healthy).map(({ uri }) => uri));
  }

  nexus(): Promise<Nexus> {
    return this.#nexusNode.rpc.getNexus({ uuid: this.#nexusUuid });
  }

  /** Waits until the nexus has given the child on a node up. */
  async childLost(node: DemoNode): Promise<void> {
    const uri = this.childOn(node);
    await until(
      `losing the child on ${node.name}`,
      () => this.nexus(),
      ({ children }) => children.some((child) => child.uri === uri && child.state === "faulted"),
    );
  }

  /** Brings the child on a node back; rebuilding it begins. */
  async bringBack(node: DemoNode): Promise<void> {
    await this.#nexusNode.rpc.onlineNexusChild({
      uuid: this.#nexusUuid,
      childUri: this.childOn(node),
    });
  }

  /** Waits until every child is in sync. */
  async whole(): Promise<Nexus> {
    const isWhole = ({ state, children }: Nexus): boolean =>
      state === "online" && children.every((child) => child.state === "online");
    return until("making the volume whole", () => this.nexus(), isWhole);
  }

  /** Bytes that the nexus's rebuilds have written so far. */
  async rebuiltBytes(): Promise<number> {
    const { history } = await this.#nexusNode.rpc.listRebuilds({ uuid: this.#nexusUuid });
    return history.reduce((sum, { blocksTransferred, blockSize }) => {
      return sum + blocksTransferred * blockSize;
    }, 0);
  }

  /** CRC32C of each replica's bytes. */
  async checksums(): Promise<number[]> {
    const checksums: number[] = [];
    for (const { node, replicaUuid } of this.#copies) {
      const { checksum } = await node.rpc.wipeReplica({ uuid: replicaUuid, method: "checksum" });
      checksums.push(checksum!);
    }
    return checksums;
  }
}
