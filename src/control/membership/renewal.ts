/** Renews a node's certificate by itself, at two thirds of its life. */
import type { Log } from "../../ops/log.ts";
import { createRequest, signNodeCertificate, validityOf } from "./certificates.ts";
import type { DataDir } from "./data-dir.ts";
import { addressesOf } from "./init.ts";
import { NODE_LIFE_MS_DEFAULT, RENEW_AT, RENEW_CHECK_MS } from "./limits.ts";

export interface RenewalOptions {
  readonly dataDir: DataDir;
  readonly log: Log;
  readonly now: () => number;
  /** Called after the new certificate is in the data directory: whoever uses it reads it again. */
  readonly onRenewed: () => void;
  readonly lifeMs?: number;
  readonly checkMs?: number;
}

/** Replaces the certificate when it is due, or at once with `force`; true when it was replaced. */
export async function renewCertificate(options: RenewalOptions, force = false): Promise<boolean> {
  const { dataDir, now } = options;
  const { fromMs, toMs } = await validityOf(dataDir.credentials().certPem);
  const nowMs = now();
  if (!force && nowMs < fromMs + (toMs - fromMs) * RENEW_AT) return false;
  const { keyPem, csrPem } = await createRequest();
  const { clusterId, nodeId, raftId } = dataDir.identity;
  const certPem = await signNodeCertificate({
    authority: dataDir.authority(),
    csrPem,
    member: { clusterId, nodeId, raftId },
    addresses: addressesOf(dataDir.identity),
    nowMs,
    lifeMs: options.lifeMs ?? NODE_LIFE_MS_DEFAULT,
  });
  dataDir.setCertificate({ keyPem, certPem });
  const validTo = new Date(nowMs + (options.lifeMs ?? NODE_LIFE_MS_DEFAULT)).toISOString();
  options.log("info", "certificate renewed", { node: nodeId, validTo });
  options.onRenewed();
  return true;
}

/** Looks now and then whether the certificate is due; returns what ends that. */
export function startRenewal(options: RenewalOptions): () => void {
  let isBusy = false;
  const look = async () => {
    if (isBusy) return;
    isBusy = true;
    try {
      await renewCertificate(options);
    } catch (error) {
      options.log("error", "the certificate cannot be renewed", { error });
    } finally {
      isBusy = false;
    }
  };
  void look();
  const timer = setInterval(() => void look(), options.checkMs ?? RENEW_CHECK_MS);
  return () => clearInterval(timer);
}
