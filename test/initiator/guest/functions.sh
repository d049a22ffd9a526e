# shellcheck shell=bash
# Functions that every script in a guest has (BASH_ENV).

# mark WORDS...: tells the host that this point is reached and waits for its answer, in $REPLY.
# Fails when the host could not do its part.
mark() {
  echo "MARK $*"
  IFS= read -r REPLY <&3 && [ "$REPLY" != $'\030' ]
}

# wait_for SECONDS COMMAND...: runs the command until it succeeds; fails when that takes too long.
wait_for() {
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$until" ]; then
      echo "waited in vain for: $*" >&2
      return 1
    fi
    sleep 0.05
  done
}

# subsystem_of NQN: the kernel's name of a subsystem that is connected, e.g. nvme-subsys0.
subsystem_of() {
  local subsystem
  for subsystem in /sys/class/nvme-subsystem/nvme-subsys*; do
    if [ "$(cat "$subsystem/subsysnqn" 2>/dev/null)" = "$1" ]; then
      echo "${subsystem##*/}"
      return 0
    fi
  done
  return 1
}

# controllers_of NQN: names of its controllers, e.g. nvme0 nvme1, by ascending number.
controllers_of() {
  local controller found=1
  for controller in /sys/class/nvme/nvme*; do
    if [ "$(cat "$controller/subsysnqn" 2>/dev/null)" = "$1" ]; then
      echo "${controller##*/}"
      found=0
    fi
  done
  return $found
}

# device_of NQN: the block device of a subsystem, e.g. /dev/nvme0n1.
device_of() {
  local subsystem path
  subsystem=$(subsystem_of "$1") || return 1
  for path in "/sys/class/nvme-subsystem/$subsystem"/nvme*n*; do
    if [ -b "/dev/${path##*/}" ]; then
      echo "/dev/${path##*/}"
      return 0
    fi
  done
  return 1
}

# live_paths NQN: how many controllers of a subsystem are live.
live_paths() {
  local controller count=0
  for controller in $(controllers_of "$1"); do
    if [ "$(cat "/sys/class/nvme/$controller/state" 2>/dev/null)" = live ]; then
      count=$((count + 1))
    fi
  done
  echo "$count"
}

# has_live_paths NQN COUNT
has_live_paths() { [ "$(live_paths "$1")" = "$2" ]; }

# ana_states NQN: one line per path: its address and the ANA state of the namespace there.
ana_states() {
  local controller path
  for controller in $(controllers_of "$1"); do
    for path in "/sys/class/nvme/$controller"/nvme*c*n*; do
      echo "$(cat "/sys/class/nvme/$controller/address") $(cat "$path/ana_state")"
    done
  done
}

# attach NQN ADDRESS PORT [OPTIONS...]: connects, waits for the block device and prints its name.
attach() {
  local nqn=$1 address=$2 port=$3
  shift 3
  nvme connect -t tcp -n "$nqn" -a "$address" -s "$port" "$@" >&2 || return
  wait_for 20 device_of "$nqn" || return
  device_of "$nqn"
}

# add_path NQN ADDRESS PORT [OPTIONS]: connects by asking the kernel itself (options as it takes them,
# e.g. reconnect_delay=1,ctrl_loss_tmo=600) and waits until the path is live. nvme-cli looks at every
# namespace before it connects, which takes forever while one has no path that works, and refuses a
# second connection to the same address.
add_path() {
  local options=transport=tcp,nqn=$1,traddr=$2,trsvcid=$3,hostnqn=$HOSTNQN,hostid=$HOSTID
  local before
  before=$(live_paths "$1")
  echo "$options${4:+,$4}" >/dev/nvme-fabrics || return
  wait_for 20 has_live_paths "$1" $((before + 1))
}

# detach NQN: disconnects and waits until nothing of the subsystem is left.
detach() {
  nvme disconnect -n "$1" >&2 || return
  wait_for 20 is_detached "$1"
}
is_detached() { ! controllers_of "$1"; }

# detach_all: unmounts, disconnects everything and waits until nothing is left.
detach_all() {
  if grep -q ' /mnt ' /proc/mounts; then umount /mnt; fi
  nvme disconnect-all
  wait_for 20 all_detached
}
all_detached() { [ -z "$(ls /sys/class/nvme)" ]; }

# verified_io TARGET SIZE [FIO OPTIONS...]: writes random data in blocks of 4 to 64 KiB to a device
# or to a file in a folder, past the page cache, reads everything back, and fails when anything
# differs. What it writes is new every time, so that data of an earlier run is a difference, too.
verified_io() {
  local target=$1 size=$2 where=--filename=$1 report=/tmp/fio.$BASHPID
  shift 2
  [ -d "$target" ] && where=--directory=$target
  fio --name=verified "$where" --size="$size" --rw=randwrite --bsrange=4k-64k --direct=1 \
    --ioengine=libaio --iodepth=16 --randseed=$((RANDOM * 32768 + RANDOM)) --verify=crc32c \
    --verify_fatal=1 --do_verify=1 --verify_state_save=0 --eta=never --output="$report" "$@" && return
  cat "$report" >&2
  return 1
}

# verified_rounds STOP TARGET SIZE [FIO OPTIONS...]: verified_io again and again until the file STOP
# exists; prints how often.
verified_rounds() {
  local stop=$1 count=0
  shift
  until [ -e "$stop" ]; do
    verified_io "$@" || return
    count=$((count + 1))
  done
  echo "$count"
}

# path_of NQN ADDRESS: folder below /sys of the path to a subsystem through an address.
path_of() {
  local controller
  for controller in $(controllers_of "$1"); do
    if grep -q "traddr=$2," "/sys/class/nvme/$controller/address"; then
      echo "/sys/class/nvme/$controller/nvme"*c*n*
      return 0
    fi
  done
  echo "no path to $1 through $2" >&2
  return 1
}

# written_sectors PATH: how many 512-byte sectors have been written so far to a path, given by its
# folder below /sys. The kernel counts for paths, not for the device above them.
written_sectors() { awk '{ print $7 }' "$1/stat"; }

# more_written NQN ADDRESS...: waits until each of the paths has been written to from now on.
more_written() {
  local nqn=$1 address path
  shift
  for address; do
    path=$(path_of "$nqn" "$address") || return
    wait_for 60 has_written_beyond "$(written_sectors "$path")" "$path" || return
  done
}
has_written_beyond() { [ "$(written_sectors "$2")" -gt "$1" ]; }
