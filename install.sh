#!/bin/sh
# Installs Trilith on this machine: one executable, its units, its user, its directories.
# `install.sh --help` tells more. POSIX sh; needs no network.
set -eu

usage() {
  cat <<'EOF'
Usage: install.sh [--no-start] [EXECUTABLE]
       install.sh --uninstall
       install.sh --help

Installs EXECUTABLE (by default `trilith` or `dist/trilith` beside this script) as
/usr/bin/trilith, with its systemd units, its user and its directories, and starts it.
Run again with a newer executable it upgrades in place: at any moment the old or the new
one is there, and what was running is restarted.

  --no-start    leave services as they are: start none, restart none
  --uninstall   stop Trilith and remove what was installed; data and settings stay
                (/var/lib/trilith, /etc/trilith, the disks)
  --help        this text

DESTDIR=DIRECTORY installs below a directory (to build an image or a package): files only,
no user, no module, no service is touched.
EOF
}

# What is installed. `trilith system-files` writes the units and settings that belong to it.
EXECUTABLE=/usr/bin/trilith
UNITS="trilith.service trilith-engine.service"
# Enabled by hand, on machines that attach volumes.
HOST_UNITS="trilith-host.service trilith-csi.service"
SYSTEM_FILES="
/usr/lib/systemd/system/trilith.service
/usr/lib/systemd/system/trilith-engine.service
/usr/lib/systemd/system/trilith-host.service
/usr/lib/systemd/system/trilith-csi.service
/usr/lib/systemd/system-preset/80-trilith.preset
/usr/lib/sysusers.d/trilith.conf
/usr/lib/tmpfiles.d/trilith.conf
/usr/lib/modules-load.d/trilith.conf
"

say() {
  echo "trilith: $*"
}

# fail WHAT [REMEDY]
fail() {
  echo "trilith: $1" >&2
  [ $# -lt 2 ] || echo "  $2" >&2
  exit 1
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# True when systemd runs this machine (and not just lies on its disk, as in a container).
systemd_runs() {
  [ -d /run/systemd/system ] && has systemctl
}

need_root() {
  [ -n "$DESTDIR" ] || [ "$(id -u)" -eq 0 ] ||
    fail "this must be run as root" "sudo sh install.sh ..."
}

# Sets $source to the executable to install.
find_executable() {
  source=$1
  if [ -z "$source" ] && [ -f "$0" ]; then
    here=$(dirname "$0")
    for candidate in "$here/trilith" "$here/dist/trilith"; do
      [ -f "$candidate" ] && source=$candidate && break
    done
  fi
  if [ -z "$source" ]; then
    echo "trilith: there is no executable to install" >&2
    cat >&2 <<'EOF'
  This script installs an executable that you have. Give its path:
      sh install.sh ./trilith
      curl -fsSL <where install.sh is> | sh -s -- ./trilith
  or put it beside install.sh. `npm run build` in a checkout makes one (dist/trilith).
EOF
    exit 1
  fi
  [ -f "$source" ] || fail "$source does not exist" "give the path of the executable"
}

# Sets $new_version; fails when the executable cannot run here.
check_executable() {
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    fail "Trilith runs on x86-64 Linux, this is $(uname -s) on $(uname -m)"
  if [ ! -x "$source" ]; then
    fail "$source is not executable" "chmod +x $source"
  fi
  # An absolute or relative path, never a name that is looked up.
  case $source in
    */*) ;;
    *) source=./$source ;;
  esac
  new_version=$("$source" version 2>&1) ||
    fail "$source does not run on this machine: $new_version" "it needs glibc (Debian 12 or newer)"
  case $new_version in
    "trilith "*) ;;
    *) fail "$source is not Trilith" ;;
  esac
}

# Puts the executable into place by a rename, so that one that runs is not disturbed.
install_executable() {
  target=$DESTDIR$EXECUTABLE
  partial=$target.new.$$
  mkdir -p "$DESTDIR/usr/bin"
  trap 'rm -f "$partial"' EXIT
  cp "$source" "$partial" || fail "cannot write $partial" "is there space?"
  chmod 755 "$partial"
  [ "$(id -u)" -ne 0 ] || chown 0:0 "$partial"
  sync "$partial" 2>/dev/null || sync
  mv -f "$partial" "$target"
  trap - EXIT
}

install_system() {
  mkdir -p "$DESTDIR/etc/trilith" "$DESTDIR/var/lib/trilith"
  chmod 755 "$DESTDIR/etc/trilith"
  chmod 750 "$DESTDIR/var/lib/trilith"
  "$DESTDIR$EXECUTABLE" system-files --write "${DESTDIR:-/}" >/dev/null ||
    fail "the units could not be written" "run this again"
}

# User, directories and module of this machine.
prepare_machine() {
  has systemd-sysusers || fail "systemd is missing" "Trilith runs under systemd: apt-get install systemd"
  systemd-sysusers /usr/lib/sysusers.d/trilith.conf
  systemd-tmpfiles --create /usr/lib/tmpfiles.d/trilith.conf
  if ! modprobe nvme-tcp 2>/dev/null && [ ! -d /sys/module/nvme_tcp ]; then
    say "note: the module nvme-tcp cannot be loaded; this machine can serve volumes, not attach them"
  fi
}

# start_services BEFORE: BEFORE is `new` for a first installation, `upgrade` otherwise.
start_services() {
  if ! systemd_runs; then
    say "systemd does not run here; the services start with the machine"
    return
  fi
  systemctl daemon-reload
  # shellcheck disable=SC2086 # a list of words
  if [ "$1" = new ]; then
    systemctl preset $UNITS
    [ "$start" = no ] || systemctl start $UNITS
  else
    [ "$start" = no ] || systemctl try-restart $UNITS $HOST_UNITS
  fi
}

install() {
  find_executable "$1"
  check_executable
  need_root
  before=new
  [ ! -e "$DESTDIR$EXECUTABLE" ] || before=upgrade
  old_version=$("$DESTDIR$EXECUTABLE" version 2>/dev/null) || old_version="an earlier build"
  install_executable
  install_system
  if [ -z "$DESTDIR" ]; then
    prepare_machine
    start_services "$before"
  fi
  if [ "$before" = new ]; then
    say "installed $new_version${DESTDIR:+ below $DESTDIR}"
  else
    say "upgraded $old_version to $new_version${DESTDIR:+ below $DESTDIR}"
  fi
  if [ -z "$DESTDIR" ]; then
    say "look at it with: systemctl status trilith-engine"
  fi
}

uninstall() {
  need_root
  if [ -z "$DESTDIR" ] && systemd_runs; then
    # shellcheck disable=SC2086 # a list of words
    systemctl disable --now $UNITS $HOST_UNITS 2>/dev/null || true
    # shellcheck disable=SC2086
    systemctl reset-failed $UNITS $HOST_UNITS 2>/dev/null || true
  fi
  rm -f "$DESTDIR$EXECUTABLE"
  for path in $SYSTEM_FILES; do
    rm -f "$DESTDIR$path"
  done
  if [ -z "$DESTDIR" ] && systemd_runs; then
    systemctl daemon-reload
  fi
  say "removed; data and settings stay in $DESTDIR/var/lib/trilith and $DESTDIR/etc/trilith"
}

main() {
  DESTDIR=${DESTDIR:-}
  DESTDIR=${DESTDIR%/}
  action=install
  start=yes
  given=
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h)
        usage
        exit 0
        ;;
      --uninstall) action=uninstall ;;
      --no-start) start=no ;;
      --) ;;
      -*) fail "unknown option $1" "install.sh --help tells what there is" ;;
      *)
        [ -z "$given" ] || fail "one executable is installed, not $given and $1"
        given=$1
        ;;
    esac
    shift
  done
  if [ "$action" = uninstall ]; then
    [ -z "$given" ] || fail "--uninstall takes no executable"
    uninstall
  else
    install "$given"
  fi
}

# Everything is read before anything is done, however this script arrives.
main "$@"
