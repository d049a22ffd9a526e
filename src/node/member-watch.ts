/** What the leader has to say of the members that keep the store, and of the certificates they show. */
import {
  type CertificateEnd,
  certificateWarnings,
  memberWarnings,
} from "../control/membership/attention.ts";
import { validityOf } from "../control/membership/certificates.ts";
import type { DataDir } from "../control/membership/data-dir.ts";
import type { Warning } from "../control/planner/plan.ts";
import type { Log } from "../ops/log.ts";
import type { Core } from "./core.ts";

/** When this node's certificate and the authority's end. */
async function ownCertificateEnds(dataDir: DataDir): Promise<CertificateEnd[]> {
  const { certPem, caPem } = dataDir.credentials();
  const [own, authority] = await Promise.all([validityOf(certPem), validityOf(caPem)]);
  return [
    { owner: dataDir.identity.nodeId, endsMs: own.toMs },
    { owner: "authority", endsMs: authority.toMs },
  ];
}

export class MemberWatch {
  readonly #dataDir: DataDir;
  readonly #core: Pick<Core, "store" | "transport">;
  readonly #log: Log;
  #ownEnds: readonly CertificateEnd[] = [];

  constructor(dataDir: DataDir, core: Pick<Core, "store" | "transport">, log: Log) {
    this.#dataDir = dataDir;
    this.#core = core;
    this.#log = log;
    this.credentialsChanged();
  }

  /** This node has a new certificate: it is looked at anew. */
  credentialsChanged(): void {
    ownCertificateEnds(this.#dataDir)
      .then((ends) => {
        this.#ownEnds = ends;
      })
      .catch((error: unknown) => {
        this.#log("error", "the node's certificates cannot be read", { error });
      });
  }

  /** Members that do not answer first. */
  warnings(nowMs: number): Warning[] {
    const { store, transport } = this.#core;
    const status = store.status();
    const links = transport.status();
    const ends = links.flatMap(({ raftId, certificateEndsMs }): CertificateEnd[] => {
      const owner = status.members.find((member) => member.raftId === raftId)?.nodeId;
      if (owner === undefined || certificateEndsMs === null) return [];
      return [{ owner, endsMs: certificateEndsMs }];
    });
    return [
      ...memberWarnings(status, links),
      ...certificateWarnings([...this.#ownEnds, ...ends], nowMs),
    ];
  }
}
