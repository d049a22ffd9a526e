/** What hosts tell the cluster. */
import { ownOperation } from "../operation.ts";
import { PathReportBody } from "../schemas/hosts.ts";

export const hostOperations = [
  ownOperation({
    id: "post_path_report",
    method: "post",
    path: "/path-reports",
    tag: "Volumes",
    summary: "Takes what a host says of its paths to volumes",
    description:
      "All volumes of which the host has lost a path, with all of their paths; it replaces the host's " +
      "former report. Hosts repeat it every 10 s as long as something is lost, and send an empty one when " +
      "all is well. A target that its hosts have lost is moved to a standby that they reach.",
    body: PathReportBody,
    handle: async ({ body }, { control, context }) => {
      const report = {
        hostNqn: body.host,
        hostName: body.name,
        volumes: body.volumes.map(({ volume, paths }) => ({
          uuid: volume,
          paths: paths.map(({ address, port, state }) => ({
            address,
            port,
            isLost: state === "lost",
          })),
        })),
      };
      await control.reportPaths(report, context);
    },
  }),
];
