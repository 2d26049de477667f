# Ends a process group or a process: SIGTERM, two seconds of grace, SIGKILL. Returns at once and goes on in the background, so
# that it does its work also if the host is lost now. A host that hung runs this late: what has the id by then may be another's.
#
# Follows:   begun.sh
# Arguments: the target, as start.sh prints it: -123@456 for a group, 123@456 for a process. 456 is the time at which process
#            123 began, in clock ticks; "@" and the time are missing where a host has no /proc.
# Exits:     0.
# shellcheck shell=sh disable=SC2154
target=${1%@*}
pid=${target#-} was=${1#"$target"}
was=${was#@}
# Whether the id is still that of the command. The id of a group without its leader comes again only after its last member.
same() { [ -z "$was" ] || ! begun "$pid" || [ "$begun" = "$was" ]; }
same || exit 0
kill -s TERM -- "$target" 2>/dev/null || exit 0
(
  trap '' HUP INT TERM
  i=0
  while kill -s 0 -- "$target" && [ $i -lt 20 ]; do
    sleep 0.1 || sleep 1
    i=$((i + 1))
  done
  same && kill -s KILL -- "$target"
) </dev/null >/dev/null 2>&1 &
