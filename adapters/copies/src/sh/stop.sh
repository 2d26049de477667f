# Ends the processes that a former holder, or an earlier call, left: those in the control group of the copy, those with the lease's
# id, or whose directory, program or open file is below the directory of the copy. Then removes files beside the tree and the
# metadata. Other scripts may follow.
#
# Follows:   cgroup.sh, processes.sh (adapters/api)
# Arguments: the lease's id, or empty; "set" to give the copy to the token first, "clear" to take it away, or empty; the token; the
#            lease's number (guard.sh of adapters/api), or empty; the lease on the host, or empty; the host's directory, or empty;
#            for "set": "yes" if there must be a control group or "no", and the limits of cgroup.sh, with colons between.
#            It shifts them away.
# Exits:     0, if no script follows; 93 (CONTAINMENT_LOST, FENCED, NOT_CONTAINED, NO_PROC, PROCESS_SURVIVES, PROCESSES_UNREADABLE
#            and those of prelude.sh).
lease=$1 number=$4 held=" $5 " hosts=${6%/*}
since='' rival='' former=' '
plain_notes
if [ -n "$2" ]; then
  # The shell drops NUL bytes.
  now=$(head -c 30 "$M/fence" 2>/dev/null)
  case $now in '' | *[!0-9]* | ???????????????????*) now=0 ;; esac
  # Tokens are revisions. A number that is 1,000,000,000 ahead was written by a holder.
  [ "$now" -le "$(($3 + 1000000000))" ] || now=0
  [ "$now" -le "$3" ] || say FENCED "$M/fence belongs to token $now, which is later than $3"
  case $2 in
  set)
    [ -d "$M" ] || say DIRECTORY_MISSING "$D is not there or holds no marker"
    had='' stat=''
    [ ! -f "$M/since" ] || read -r had v 2>/dev/null <"$M/since" || :
    if [ "$had" != "$3" ] && read -r stat 2>/dev/null <"/proc/$$/stat"; then
      # shellcheck disable=SC2086 # Numbers.
      start=$(set -- ${stat##*) } && echo "${20}")
      e=$({ printf '%s %s %s\n' "$3" "$boot" "$start" >"$M/since.new" && mv -f -- "$M/since.new" "$M/since"; } 2>&1) ||
        say CANNOT_CREATE "$e"
    fi
    e=$({ printf '%s\n' "$3" >"$M/fence.new" && mv -f -- "$M/fence.new" "$M/fence"; } 2>&1) || say CANNOT_CREATE "$e"
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
[ -r /proc/self/status ] || say NO_PROC "/proc is not mounted, so left-over processes cannot be found"

{ true </proc/1/status; } 2>/dev/null || say NO_PROC "/proc hides processes (hidepid), so left-over processes cannot be found"

since_note "$M/over"
if [ -n "$since" ] && [ -z "$reads_all" ]; then
  for f in "${D%/*}"/*/meta/host "$hosts"/*/copies/*/meta/host; do
    v=
    if [ -f "$f" ] && [ ! -L "$f" ]; then read -r v 2>/dev/null <"$f" || :; fi
    held="$held$v "
  done
  for f in "${D%/*}"/*/meta/since "$hosts"/*/copies/*/meta/since "$hosts"/*/.wharfinger/since.*; do
    [ "$f" != "$M/since" ] || continue
    began "$f"
    case $held in *" ${noted:-?} "*) ;; *) rival_note "$f" ;; esac
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

# One grep searches all of /proc; each file that it finds is then compared line by line.
marked() {
  grep -alF -e "$1" /proc/[0-9]*/environ 2>/dev/null | while IFS= read -r f; do
    if tr '\0' '\n' 2>/dev/null <"$f" | grep -qxF -e "$1"; then
      f=${f#/proc/}
      printf '%s\n' "${f%%/*}"
    fi
  done
}

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

# The process group of such a process counts with it, marked or not. The groups are remembered: the leader may end first.
groups=' '
note_groups() {
  for pid in $left; do
    line=
    read -r line 2>/dev/null <"/proc/$pid/stat" || continue
    # shellcheck disable=SC2086
    set -- ${line##*) }
    [ "${3:-}" != "$pid" ] || groups="$groups$pid "
  done
}
members() {
  [ "$groups" != ' ' ] || return 0
  cat /proc/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9]*\) (.*) [^ZX] [0-9]* \([0-9]*\) .*/\1 \2/p' |
    while read -r pid group; do
      case $groups in *" $group "*) printf '%s\n' "$pid" ;; esac
    done
}

victims() {
  seen=' '
  {
    marked "WHARFINGER_COPY=$R"
    inside
    members
    if [ -n "$lease" ]; then marked "WHARFINGER_LEASE=$lease"; fi
    limited "$number"
    for pid in $mine; do printf '%s\n' "$pid"; done
  } |
    while read -r pid; do
      case $seen$spare in
      *" $pid "*) ;;
      *)
        seen="$seen$pid "
        [ -d "/proc/$pid" ] && printf '%s ' "$pid"
        ;;
      esac
    done
}

# Sets $left, the processes to end, and $young and $unsure (processes.sh).
find_left() {
  if [ -n "$since" ] && [ -z "$reads_all" ]; then look; fi
  unreadable
  left=$(victims)
}

# Sends SIGTERM to the processes that are left, and SIGKILL after two seconds.
end_all() {
  find_left
  [ -n "$left$young" ] || return 0
  note_groups
  left=$(victims)
  for pid in $left; do kill -TERM "$pid" 2>/dev/null; done
  i=0
  while [ $i -lt 20 ]; do
    sleep 0.1 2>/dev/null || sleep 1
    was=$left
    find_left
    [ -n "$left$young" ] || return 0
    # A process that was unreadable once only has not got SIGTERM yet.
    for pid in $left; do case " $was " in *" $pid "*) ;; *) kill -TERM "$pid" 2>/dev/null ;; esac done
    note_groups
    i=$((i + 1))
  done
  # A parent may start children between the search and its end: repeated until no process is left.
  i=0
  while [ $i -lt 30 ]; do
    for pid in $left; do kill -KILL "$pid" 2>/dev/null; done
    find_left
    note_groups
    [ -n "$left" ] || return 0
    sleep 0.1 2>/dev/null || sleep 1
    i=$((i + 1))
  done
  names=
  for pid in $left; do
    c=
    read -r c 2>/dev/null <"/proc/$pid/comm" || :
    names="$names $pid($c)"
  done
  say PROCESS_SURVIVES "these processes survive SIGKILL:$names"
}
end_all
[ "$unsure" = ' ' ] || say PROCESSES_UNREADABLE "these processes cannot be read, and began during this lease and another of the same user:$unsure"
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
