/** The Identity service: what the driver is, what it can do, and whether it can work now. */
import type { RestClient } from "../client/client.ts";
import { TrilithError } from "../errors.ts";
import { buildInfo } from "../version.ts";
import {
  PluginCapability_VolumeExpansion_Type as ExpansionType,
  PluginCapability_Service_Type as ServiceType,
} from "./generated/csi_pb.js";
import type { IdentityHandlers } from "./handlers.ts";

export interface IdentityOptions {
  readonly driverName: string;
  /** The API that volumes are made through; null: this is a node's service alone, ready by itself. */
  readonly client: RestClient | null;
  readonly roles: { readonly controller: boolean };
}

/** True when the API answers, whatever it says: then it is there. */
async function answers(client: RestClient): Promise<boolean> {
  try {
    await client.cluster();
    return true;
  } catch (error) {
    if (error instanceof TrilithError && ["Unavailable", "Timeout"].includes(error.code)) {
      return false;
    }
    throw error;
  }
}

/** The Identity service. `Probe` is ready only while the API answers. */
export function identityService(options: IdentityOptions): IdentityHandlers {
  const { driverName, client, roles } = options;
  const services = [
    ...(roles.controller ? [ServiceType.CONTROLLER_SERVICE] : []),
    ServiceType.VOLUME_ACCESSIBILITY_CONSTRAINTS,
  ];
  const expansions = [ExpansionType.ONLINE, ExpansionType.OFFLINE];
  return {
    getPluginInfo: async () => ({ name: driverName, vendorVersion: buildInfo.version }),
    getPluginCapabilities: async () => ({
      capabilities: [
        ...services.map((type) => ({ type: { case: "service", value: { type } } as const })),
        ...expansions.map((type) => ({
          type: { case: "volumeExpansion", value: { type } } as const,
        })),
      ],
    }),
    probe: async () => ({ ready: client === null || (await answers(client)) }),
  };
}
