#!/bin/bash
# The product's executable as scripts call it. Its runtime makes what it writes to non-blocking; a lane is
# shared with everything else that writes there, so that it gets a pipe of its own instead.
program=/opt/trilith/trilith
out=/proc/self/fd/1 err=/proc/self/fd/2
if [ -c $out ] && [ -c $err ]; then
  "$program" "$@" 2>&1 | cat
  exit "${PIPESTATUS[0]}"
elif [ -c $out ]; then
  "$program" "$@" | cat
  exit "${PIPESTATUS[0]}"
elif [ -c $err ]; then
  exec 4>&1
  "$program" "$@" 2>&1 >&4 4>&- | cat >&2
  exit "${PIPESTATUS[0]}"
fi
exec "$program" "$@"
