# Ends a process group or a process: SIGTERM, two seconds of grace, SIGKILL. Returns at once and goes on in the background, so
# that it does its work also if the host is lost now.
#
# Arguments: the target: -123 for a group, 123 for a process.
# Exits:     0.
# shellcheck shell=sh
target=$1
kill -s TERM -- "$target" 2>/dev/null || exit 0
(
  trap '' HUP INT TERM
  i=0
  while kill -s 0 -- "$target" && [ $i -lt 20 ]; do
    sleep 0.1 || sleep 1
    i=$((i + 1))
  done
  kill -s KILL -- "$target"
) </dev/null >/dev/null 2>&1 &
