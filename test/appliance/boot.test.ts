/**
 * The appliance on a real machine: Debian with its own kernel and systemd in QEMU. Takes minutes and
 * fetches a Debian, so it runs with `npm run test:nightly` only.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { executablePath, projectRoot } from "../support/executable.ts";
import { tempFolders } from "../support/temp-folder.ts";
import { runOnMachine } from "./boot-image.ts";

const folder = tempFolders();
const isNightly = process.env.TRILITH_NIGHTLY === "1" && process.getuid?.() === 0;

const SCRIPT = `
active() { systemctl is-active "$@"; }
inactive() { if active "$1"; then return 1; fi; }
pid() { systemctl show --property MainPID --value trilith-engine; }
sh install.sh ./trilith
active trilith-engine trilith

# Without privileges, and yet with rings (it would not be active without), disks and sockets.
status=/proc/$(pid)/status
grep -q "^Uid:.*$(id -u trilith)" $status
grep -q "^CapEff:.0000000000000000" $status
grep -q "^CapBnd:.0000000000000000" $status
grep -q "^NoNewPrivs:.1" $status
grep -q "^Seccomp:.2" $status
lsmod | grep -q nvme_tcp

# A disk, a device whose driver is loaded only now, and a file that is none of its business.
bash ./rpc.sh '{"uri":"/dev/vdc"}' | tee /dev/stderr | grep '"blockCount":524288'
modprobe loop
truncate -s 16M /var/tmp/file
losetup /dev/loop0 /var/tmp/file
udevadm settle
bash ./rpc.sh '{"uri":"/dev/loop0"}' | tee /dev/stderr | grep '"blockCount":32768'
bash ./rpc.sh '{"uri":"/etc/shadow"}' | tee /dev/stderr | grep PermissionDenied
bash ./rpc.sh '{"uri":"/dev/vda"}' | tee /dev/stderr | grep -E 'InUse|PermissionDenied'

# Killed, it is back; upgraded, it is another process; stopped by hand, it stays stopped.
first=$(pid)
kill -9 $first
until active trilith-engine && [ "$(pid)" != $first ]; do sleep 0.5; done
second=$(pid)
sh install.sh ./trilith
active trilith-engine
[ "$(pid)" != $second ]
systemctl stop trilith-engine
inactive trilith-engine
sh install.sh --no-start ./trilith
inactive trilith-engine

sh install.sh --uninstall
[ ! -e /usr/bin/trilith ]
[ -d /var/lib/trilith ]
[ -d /etc/trilith ]
[ -z "$(systemctl list-unit-files --no-legend 'trilith*')" ]
`;

/** PUT /v1/bdevs by bash alone: the machine has no HTTP client. */
const RPC = `
exec 3<>/dev/tcp/127.0.0.1/10124
printf 'PUT /v1/bdevs HTTP/1.1\\r\\nHost: machine\\r\\nConnection: close\\r\\n' >&3
printf 'Content-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%s' \${#1} "$1" >&3
cat <&3
`;

describe("on a Debian machine", () => {
  test.skipIf(!isNightly)(
    "installs, runs without privileges, restarts, upgrades and goes away",
    async () => {
      const rpc = join(folder(), "rpc.sh");
      await Bun.write(rpc, RPC);
      const output = runOnMachine(SCRIPT, [executablePath(), join(projectRoot, "install.sh"), rpc]);
      expect(output).toContain("status 0");
    },
    900_000,
  );
});
