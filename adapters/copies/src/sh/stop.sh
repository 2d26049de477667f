# Ends the processes that a former holder, or an earlier call, left: those in the control group of the copy, those with the lease's
# id, or whose directory, program or open file is below the directory of the copy. Then removes files beside the tree and the
# metadata. Other scripts may follow.
#
# Follows:   cgroup.sh, processes.sh, fence.sh (adapters/host)
# Arguments: the lease's id, or empty; "set" to give the copy to the token first, "clear" to take it away, or empty; the token; the
#            lease's number (guard.sh of adapters/host), or empty; the lease on the host, or empty; the host's directory, or empty;
#            for "set": "yes" if there must be a control group or "no", and the limits of cgroup.sh, with colons between.
#            It shifts them away.
# Exits:     0, if no script follows; 93 (CONTAINMENT_LOST, FENCED, NOT_CONTAINED, NO_PROC, PROCESS_SURVIVES, PROCESSES_UNREADABLE
#            and those of prelude.sh).
lease=$1 number=$4 held=" $5 " hosts=${6%/*}
since='' rival=''
plain_notes
if [ -n "$2" ]; then
  now=$(compare "$M/fence" "$3" 2>&1) || say FENCED "$M/fence belongs to token $now, which is later than $3"
  case $2 in
  set)
    [ -d "$M" ] || say DIRECTORY_MISSING "$D is not there or holds no marker"
    e=$({ note_start "$M/since" "$3" "$lease" && write_token "$M/fence" "$3"; } 2>&1) || say CANNOT_CREATE "$e"
    ;;
  clear)
    e=$(rm -f -- "$M/fence" 2>&1) || say CANNOT_REMOVE "$e"
    # A lease that is over is no rival to others, and its start is kept until its processes have ended.
    if [ -f "$M/since" ]; then e=$(mv -f -- "$M/since" "$M/over" 2>&1) || say CANNOT_REMOVE "$e"; fi
    ;;
  esac
  if [ -n "$5" ] && [ -d "$M" ]; then printf '%s\n' "$5" 2>/dev/null >"$M/host" || :; fi
fi
unset WHARFINGER_COPY
e=$(need_proc 2>&1) || say NO_PROC "$e, so that left-over processes cannot be found"

since_note "$M/over"
if [ -n "$since" ] && [ -z "$reads_all" ]; then
  held_slots "${D%/*}"/*/meta/host "$hosts"/*/copies/*/meta/host
  for note in "${D%/*}"/*/meta/since "$hosts"/*/copies/*/meta/since "$hosts"/*/.wharfinger/since.*; do
    [ "$note" = "$M/since" ] || rival_notes "$note"
  done
fi

# Both are known here for the calls that follow.
cg_named "$D/meta/fence" || :
cg_mounted tree || :
# A group that cannot be shown to be empty is not clean.
e=$(cg_end "$D/meta/fence" 2>&1) || case $? in
7) say CONTAINMENT_LOST "$e" ;;
*) say PROCESS_SURVIVES "$e" ;;
esac
e=$(drop "$D/meta/cgroup" 2>&1) || say CANNOT_REMOVE "$e"
if [ "$2" = set ]; then
  IFS=: read -r must memory cpu pids <<END
$7
END
  cg_make "$D/meta/fence" "$3" "$must" "$memory" "$cpu" "$pids" ||
    [ "$must$memory$cpu$pids" = no ] || say NOT_CONTAINED "$cg_fault"
fi

base=$(cd -P -- "$D" 2>/dev/null && pwd -P) || base=$D

# This script and its parents are never ended.
spare=" $$ "
p=$$
while [ "$p" -gt 1 ]; do
  up=0
  while read -r k v; do
    if [ "$k" = PPid: ]; then
      up=$v
      break
    fi
  done 2>/dev/null <"/proc/$p/status"
  p=$up
  spare="$spare$p "
done

# Whether this path is below the directory of the copy.
ours() {
  case $1 in "$base/"*) ;; *) return 1 ;; esac
}

# Prints processes whose directory, program or open file is below the copy: they could write files of the next holder. A path may
# have a newline or " -> ", so no listing of several processes is parsed: find compares the target of a link, and prints its process.
at=$base
case $base in *[][*?\\]*) at=$(printf '%s' "$base" | sed 's/[][*?\\]/\\&/g') ;; esac
inside() {
  # A find without -lname prints nothing, and so does one that is cut short: the last argument is always printed.
  links=$(find /proc/[0-9]*/cwd /proc/[0-9]*/exe /proc/[0-9]*/fd /proc/self/exe -maxdepth 1 -type l \
    \( -lname "$at/*" -o -path /proc/self/exe \) 2>/dev/null)
  case $links in
  *'/proc/self/exe')
    for p in $links; do
      p=${p#/proc/}
      p=${p%%/*}
      [ "$p" = self ] || printf '%s\n' "$p"
    done
    return 0
    ;;
  esac
  for p in /proc/[0-9]*; do
    # One listing finds the candidates; each link of a candidate is compared whole.
    # shellcheck disable=SC2012
    ls -l "$p/cwd" "$p/exe" "$p/fd" 2>/dev/null | while IFS= read -r line; do
      if ours "${line#*" -> "}"; then
        echo
        break
      fi
    done | while read -r _; do
      for f in "$p/cwd" "$p/exe" "$p/fd"/*; do
        # The dot keeps newlines at the end.
        to=$(readlink "$f" 2>/dev/null && echo .)
        if ours "${to%"$newline".}"; then
          printf '%s\n' "${p#/proc/}"
          break
        fi
      done
    done
  done
}

# Prints those of `inside` that two looks find. A backup or a monitor that opens a file for a moment writes to no holder's tree.
settled() {
  at_first=" $(inside | tr '\n' ' ')"
  [ "$at_first" != ' ' ] || return 0
  sleep 0.1 2>/dev/null || sleep 1
  inside | while read -r pid; do case $at_first in *" $pid "*) printf '%s\n' "$pid" ;; esac done
}

marked() {
  {
    carrying "WHARFINGER_COPY=$R"
    settled
    [ -z "$lease" ] || carrying "WHARFINGER_LEASE=$lease"
    limited "$number"
  } | while read -r pid; do
    case $spare in *" $pid "*) ;; *) printf '%s\n' "$pid" ;; esac
  done
}
e=$(end_all 1 2>&1) || case $? in
6) say PROCESSES_UNREADABLE "these processes cannot be read, and began during this lease and another of the same user: ${e#unreadable:}" ;;
*) say PROCESS_SURVIVES "$e" ;;
esac
[ -z "$since" ] || rm -f -- "$M/over"
export WHARFINGER_COPY="$R"
# A build may have created files beside its tree.
if [ ! -L "$D" ] && [ ! -L "$D/meta" ] && [ -f "$D/meta/marker" ] && [ "$(head -c 200 "$D/meta/marker" 2>/dev/null)" = "$R" ]; then
  for f in "$D"/* "$D"/.[!.]* "$D"/..?*; do
    [ -e "$f" ] || [ -L "$f" ] || continue
    case ${f##*/} in
    tree | meta | parts) ;;
    *)
      guard_mounts
      remove "$f"
      ;;
    esac
  done
fi
shift 7
