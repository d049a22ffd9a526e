/**
 * A Debian machine to install on: a disk image with systemd and a kernel, made by debootstrap, that
 * runs a script from a second disk and powers off. Made once and kept (about 100 MB to fetch) in
 * `$XDG_CACHE_HOME/trilith-appliance`, or in `node_modules/.cache/appliance`.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { projectRoot, runCommand } from "../support/executable.ts";

const SUITE = "bookworm";
const MACHINE_MIB = 1536;
const DISK_BYTES = "2G";
const BOOT_TIMEOUT_S = 600;
const PACKAGES = ["systemd", "systemd-sysv", "dbus", "udev", "kmod", "nvme-cli"];
const KERNEL_PACKAGES = ["linux-image-cloud-amd64", "initramfs-tools"];

/** Runs the script of the second disk, notes its status, and powers off. */
const RUN_UNIT = `[Unit]
Description=what the test wants to know
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=file:/run/output
StandardError=file:/run/output
ExecStart=/bin/bash -c 'mount /dev/vdb /mnt && cd /mnt && bash -eux ./script.sh; echo "status $?"'
ExecStopPost=/bin/sh -c 'cat /run/output > /dev/ttyS1'
ExecStopPost=/bin/systemctl poweroff --force --force
[Install]
WantedBy=multi-user.target
`;

function must(what: string, ...command: string[]): void {
  const result = runCommand(command, { cwd: "/" });
  if (result.status !== 0)
    throw new Error(`${what}: ${result.stdout}${result.stderr}`.slice(-4_000));
}

function cacheFolder(): string {
  const xdg = process.env.XDG_CACHE_HOME;
  if (xdg !== undefined && xdg !== "") return join(xdg, "trilith-appliance");
  return join(projectRoot, "node_modules/.cache/appliance");
}

interface Machine {
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
}

function makeMachine(place: string): void {
  const root = join(place, "root");
  const include = `--include=${PACKAGES.join(",")}`;
  must("debootstrap", "debootstrap", "--variant=minbase", include, SUITE, root);
  // The kernel comes second: making its initramfs needs a machine that is configured.
  const install = `
    mount --bind "$1" "$1" && mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" &&
    mount --rbind /sys "$1/sys" && cp /etc/resolv.conf "$1/etc/resolv.conf"
    DEBIAN_FRONTEND=noninteractive exec chroot "$1" apt-get install -y --no-install-recommends ${KERNEL_PACKAGES.join(" ")}`;
  must("kernel", "unshare", "--mount", "sh", "-c", install, "sh", root);
  writeFileSync(join(root, "etc/systemd/system/run-script.service"), RUN_UNIT);
  must("enable", "systemctl", `--root=${root}`, "enable", "run-script.service");
  writeFileSync(join(root, "etc/fstab"), "/dev/vda / ext4 rw 0 0\n");
  writeFileSync(join(root, "etc/hostname"), "machine\n");
  const boot = readdirSync(join(root, "boot"));
  for (const [name, prefix] of [
    ["kernel", "vmlinuz-"],
    ["initrd", "initrd.img-"],
  ] as const) {
    const file = boot.find((entry) => entry.startsWith(prefix));
    if (file === undefined) throw new Error(`there is no ${prefix} in the machine's /boot`);
    must("boot files", "cp", join(root, "boot", file), join(place, name));
  }
  const disk = join(place, "disk");
  must("disk", "truncate", "-s", DISK_BYTES, disk);
  must("disk", "mke2fs", "-q", "-t", "ext4", "-d", root, disk);
  rmSync(root, { recursive: true });
}

/** The machine, made when it is not there yet. */
function machine(): Machine {
  const cache = cacheFolder();
  const key = Bun.hash(`${SUITE} ${PACKAGES} ${KERNEL_PACKAGES} ${RUN_UNIT} ${DISK_BYTES}`);
  const place = join(cache, key.toString(16));
  if (!existsSync(place)) {
    rmSync(cache, { recursive: true, force: true });
    mkdirSync(cache, { recursive: true });
    const partial = `${place}.${process.pid}`;
    mkdirSync(partial);
    makeMachine(partial);
    renameSync(partial, place);
  }
  return {
    disk: join(place, "disk"),
    kernel: join(place, "kernel"),
    initrd: join(place, "initrd"),
  };
}

/**
 * Boots the machine, with a spare disk /dev/vdc of 256 MiB, runs `script` as root in a folder that
 * holds `files`, and returns what it wrote. The script must end with status 0. Nothing is kept.
 */
export function runOnMachine(script: string, files: readonly string[]): string {
  const { disk, kernel, initrd } = machine();
  const place = mkdtempSync(join(tmpdir(), "trilith-boot-"));
  try {
    const payload = join(place, "payload");
    mkdirSync(payload);
    for (const file of files) must("payload", "cp", file, payload);
    writeFileSync(join(payload, "script.sh"), script);
    for (const [name, size] of [
      ["second", "512M"],
      ["spare", "256M"],
    ] as const) {
      must("disk", "truncate", "-s", size, join(place, name));
    }
    must("disk", "mke2fs", "-q", "-t", "ext4", "-d", payload, join(place, "second"));
    const drive = (path: string) => ["-drive", `file=${path},if=virtio,format=raw,snapshot=on`];
    const output = join(place, "output");
    const console = join(place, "console");
    const append = "root=/dev/vda rw console=ttyS0 loglevel=4 panic=-1 mitigations=off";
    const qemu = [
      ...["timeout", String(BOOT_TIMEOUT_S), "qemu-system-x86_64", "-M", "pc"],
      ...["-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2"],
      ...["-m", String(MACHINE_MIB), "-nodefaults", "-display", "none", "-no-reboot"],
      ...["-kernel", kernel, "-initrd", initrd, "-append", append],
      ...[disk, join(place, "second"), join(place, "spare")].flatMap(drive),
      ...["-serial", `file:${console}`, "-serial", `file:${output}`, "-device", "virtio-rng-pci"],
    ];
    const ran = runCommand(qemu);
    const text = existsSync(output) ? readFileSync(output, "utf8").replaceAll("\r", "") : "";
    if (ran.status === 0 && /^status 0$/m.test(text)) return text;
    const tail = existsSync(console) ? readFileSync(console, "utf8").slice(-2_000) : "";
    throw new Error(`the machine failed (${ran.status}) ${ran.stderr}\n${text}\n${tail}`);
  } finally {
    rmSync(place, { recursive: true });
  }
}
