/** What hosts say of lost paths, as the leader remembers it. */
import { describe, expect, test } from "bun:test";
import type { PathReport } from "../../../src/control/control.ts";
import {
  PathReports,
  REPORT_VALID_MS,
  REPORTING_HOSTS_MAX,
} from "../../../src/control/path-reports.ts";

const report = (hostNqn: string, volumes: Record<string, Record<string, boolean>>): PathReport => ({
  hostNqn,
  hostName: hostNqn.slice(4),
  volumes: Object.entries(volumes).map(([uuid, paths]) => ({
    uuid,
    paths: Object.entries(paths).map(([address, isLost]) => ({ address, port: 8420, isLost })),
  })),
});
const at = (address: string, lostSinceMs: number | null) => ({ address, port: 8420, lostSinceMs });

describe("reports of paths", () => {
  test("tell since when a path is lost, however often it is repeated", () => {
    const reports = new PathReports();
    expect(reports.report(report("nqn.a", { v: { x: true, y: false } }), 1000)).toEqual(["v"]);
    expect(reports.report(report("nqn.a", { v: { x: true, y: false } }), 2000)).toEqual([]);
    expect(reports.report(report("nqn.a", { v: { x: true, y: true } }), 3000)).toEqual(["v"]);
    expect(reports.current(3000).get("v")).toEqual([
      { hostNqn: "nqn.a", hostName: "a", paths: [at("x", 1000), at("y", 3000)] },
    ]);
    // Lost, found, and lost again.
    reports.report(report("nqn.a", { v: { x: false, y: true } }), 4000);
    reports.report(report("nqn.a", { v: { x: true, y: true } }), 5000);
    expect(reports.current(5000).get("v")?.[0]?.paths).toEqual([at("x", 5000), at("y", 3000)]);
  });

  test("replace the host's former one, and leave those of others", () => {
    const reports = new PathReports();
    reports.report(report("nqn.a", { v: { x: true }, w: { x: true } }), 0);
    reports.report(report("nqn.b", { v: { x: true } }), 0);
    expect(reports.report(report("nqn.a", { w: { x: true } }), 1)).toEqual(["v"]);
    expect(
      reports
        .current(1)
        .get("v")
        ?.map(({ hostName }) => hostName),
    ).toEqual(["b"]);
    expect(reports.report(report("nqn.a", {}), 2)).toEqual(["w"]);
    expect([...reports.current(2).keys()]).toEqual(["v"]);
  });

  test("are forgotten when the host is silent", () => {
    const reports = new PathReports();
    reports.report(report("nqn.a", { v: { x: true } }), 0);
    const known = reports.current(REPORT_VALID_MS - 1);
    expect(known.size).toBe(1);
    expect(reports.current(REPORT_VALID_MS - 1)).toBe(known);
    expect(reports.current(REPORT_VALID_MS).size).toBe(0);
    // Who comes back later has lost it anew.
    reports.report(report("nqn.a", { v: { x: true } }), REPORT_VALID_MS + 5);
    const [one] = reports.current(REPORT_VALID_MS + 5).get("v")!;
    expect(one!.paths).toEqual([at("x", REPORT_VALID_MS + 5)]);
  });

  test("of more hosts than are remembered are dropped", () => {
    const reports = new PathReports();
    for (let i = 0; i < REPORTING_HOSTS_MAX; i++) {
      reports.report(report(`nqn.${i}`, { [`v${i}`]: { x: true } }), 0);
    }
    expect(reports.report(report("nqn.more", { more: { x: true } }), 0)).toEqual([]);
    expect(reports.current(0).has("more")).toBe(false);
    reports.report(report("nqn.0", {}), 0);
    expect(reports.report(report("nqn.more", { more: { x: true } }), 0)).toEqual(["more"]);
  });
});
