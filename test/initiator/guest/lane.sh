#!/bin/bash
# One lane: lane.sh DEVICE NAME. The host sends the length of a script in bytes on a line, then the
# script; the script's output and errors go to the lane; its standard input is empty, what the host
# says to it comes from descriptor 3. When it ends, its status follows on a line that begins with the
# byte 0x1e. Ends when the host closes its side.
exec 0<>"$1" 1>&0 2>&0
script=/run/lanes/$2
while IFS= read -r length; do
  head -c "$length" >"$script"
  bash "$script" 3<&0 </dev/null
  printf '\036%d\n' $?
done
