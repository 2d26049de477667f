# Becomes a command if the fence has this token, in the control groups of the slot (cgroup.sh).
#
# Arguments: the fence, the token, the lease's number or empty, the command and its arguments.
# Prints:    what the command prints.
# Changes:   moves itself into the control groups of the slot; its soft limit of file locks.
# Exits:     as the command; 113 if the fence has another token, or if a group cannot be entered; 127 if there is no such program.
# shellcheck shell=sh
fence=$1 token=$2 number=$3
shift 3
# Before the look at the fence: what passes it is in the group that the clean-up ends after it took the fence away.
note=${fence%/*}/cgroup${fence##*/fence} shut=
if [ -f "$note" ] && [ ! -L "$note" ]; then
  while read -r kind group; do
    case $kind in
    tree | memory | cpu | pids) { echo 0 >"$group/cgroup.procs"; } 2>/dev/null || shut=$group ;;
    scope)
      # The user's service manager moves us there; a command of a command is there already.
      grep -q "^0::.*/wharfinger/${group##*/}\$" /proc/self/cgroup ||
        XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)} busctl --user call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
          org.freedesktop.systemd1.Manager AttachProcessesToUnit ssau wharfinger-slots.service "/wharfinger/${group##*/}" 1 $$ \
          </dev/null >/dev/null 2>&1 || shut=$group
      ;;
    esac
  done 2>/dev/null <"$note"
fi
now=
{ read -r now <"$fence"; } 2>/dev/null
if [ "$now" != "$token" ]; then
  if [ -n "$now" ]; then now="token $now"; else now='no lease'; fi
  printf 'wharfinger: refused: this lease has token %s, and the slot belongs to %s\n' "$token" "$now" >&2
  exit 113
fi
if [ -n "$shut" ]; then
  printf 'wharfinger: refused: %s cannot enter the control group of its slot, %s; see docs/fencing.md\n' "$(id -un 2>/dev/null)" "$shut" >&2
  exit 113
fi
command -v -- "$1" >/dev/null 2>&1 || {
  printf 'wharfinger: there is no program %s\n' "$1" >&2
  exit 127
}
# The soft limit of file locks has no effect on Linux. Children inherit it, also with an emptied environment, and
# /proc/PID/limits shows it to every user, also of a process that cannot be read otherwise. dash and busybox call it -w, bash -x.
case $number in
'' | *[!0-9]*) ;;
*)
  # shellcheck disable=SC3045
  ulimit -S -w "$number" 2>/dev/null || ulimit -S -x "$number" 2>/dev/null || true
  ;;
esac
exec "$@"
