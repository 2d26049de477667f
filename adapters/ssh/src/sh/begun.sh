# Finds when a process began. A library in front of another script's text.
#
# Sets:      $begun, by `begun`.
#
# A process is the same as before only if it began at the same time (field 22 of its stat), since ids come again.
# shellcheck shell=sh disable=SC2034
# Sets $begun, and fails if there is no such process. Its name may have any byte: the numbers follow the last ") ".
begun() {
  begun='' stat=''
  [ -r "/proc/$1/stat" ] || return 1
  while IFS= read -r part || [ -n "$part" ]; do stat="$stat$part "; done 2>/dev/null <"/proc/$1/stat"
  stat=${stat##*) }
  # shellcheck disable=SC2086 # Numbers.
  set -- $stat
  [ "${1:-Z}" != Z ] && begun=${20}
}
