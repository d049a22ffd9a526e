#!/bin/busybox sh
# shellcheck shell=dash
# The guest's first process: mounts, modules, network, then one lane.sh per port to the host.
# Powers off when the host closes the first lane, so that no guest outlives its test.
export PATH=/bin:/sbin HOME=/root TERM=dumb LANG=C

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /run/nvme /run/lanes
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t debugfs dbg /sys/kernel/debug 2>/dev/null

while read -r module; do modprobe "$module" 2>/dev/null; done </etc/boot-modules

# Runs a command until it succeeds, for five seconds at most.
eventually() {
  tries=0
  until "$@" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || return 1
    sleep 0.05
  done
}
link_is_up() { [ "$(cat /sys/class/net/eth0/operstate)" = up ]; }

# QEMU's user-mode network: the guest is 10.0.2.15, the host 10.0.2.2. Every address in 127/8 is
# sent there too and reaches the host's loopback, so that an address in a discovery log means the
# same on both sides.
gateway=10.0.2.2 address=10.0.2.15
hostname initiator
ip link set lo up
eventually [ -e /sys/class/net/eth0 ]
ip link set eth0 up
ip addr add "$address/24" dev eth0
ip route add default via "$gateway"
eventually link_is_up
for name in all default eth0 lo; do
  echo 1 >/proc/sys/net/ipv4/conf/$name/route_localnet
  echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter
done
ip addr del 127.0.0.1/8 dev lo
ip route flush table local dev lo 127.0.0.0/8 2>/dev/null
ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null
ip route add 127.0.0.0/8 via "$gateway" src "$address"

HOSTNQN=$(cat /etc/nvme/hostnqn)
HOSTID=$(cat /etc/nvme/hostid)
BASH_ENV=/host/functions.sh
export HOSTNQN HOSTID BASH_ENV
dmesg -n 7
echo "guest ready after $(cut -d' ' -f1 /proc/uptime) s" >/dev/console

cd /host || exit
first=
for port in /sys/class/virtio-ports/*; do
  name=$(cat "$port/name")
  bash /host/lane.sh "/dev/${port##*/}" "$name" &
  [ "$name" = lane0 ] && first=$!
done
wait "$first"
poweroff -f
