# Finds the processes that a lease left, and ends them. A library in front of another script's text.
#
# Expects: `marked`, a function that prints the ids of processes to end, one a line.
#          $since: the start of the lease in clock ticks since the boot, or empty: unreadable processes count from then on.
#          $rival: the earliest start of another lease that is live for this user, or empty.
#          $held: leases whose starts are no rivals (`rival_notes`), with blanks around each.
# Sets:    $ended, by `end_all`: how many processes were signalled.
# Exits:   3, by `end_all`: processes outlive SIGKILL; 4, by `need_proc`: there is no usable /proc; 6, by `end_all`: a process
#          cannot be read and may be another live lease's.
# Needs:   grep, awk, sleep; Linux for its /proc. Works under dash, bash and busybox.
# shellcheck shell=sh disable=SC2034

# Ends the script where /proc is missing or hides processes of other users. Without the right to look at those, an unreadable
# process of our own looks like none at all.
need_proc() {
  [ -r "/proc/$$/stat" ] || {
    echo 'this host has no /proc' >&2
    exit 4
  }
  { true </proc/1/status; } 2>/dev/null || {
    echo '/proc hides processes (hidepid)' >&2
    exit 4
  }
}

# Sets $table, one line a living process: id, parent, group, session, start. The name in /proc/PID/stat may have any byte, a
# newline too. grep puts the file's name before each line, and the numbers follow the last ") " of a file's last line.
look() {
  table=$(LC_ALL=C grep '' /proc/[0-9]*/stat /dev/null 2>/dev/null | LC_ALL=C awk '
    { pid = $0; sub(/^\/proc\//, "", pid); sub(/\/.*/, "", pid); last[pid] = $0 }
    END {
      for (pid in last) {
        sub(/^.*\) /, "", last[pid])
        split(last[pid], field, " ")
        if (field[1] != "Z" && field[1] != "X" && field[20] ~ /^[0-9]+$/) print pid, field[2], field[3], field[4], field[20]
      }
    }')
  own=$(printf '%s\n' "$table" | awk -v pid=$$ '$1 == pid { print $3 }')
}

# Prints the processes whose soft limit of file locks is this number; see guard.sh.
limited() {
  case $1 in '' | *[!0-9]*) return 0 ;; esac
  grep -l "^Max file locks  *$1 " /proc/[0-9]*/limits 2>/dev/null | while IFS=/ read -r _ _ pid _; do echo "$pid"; done
}

# Prints the processes whose environment has this line. grep would take two lines for two patterns, and an empty one for any
# empty entry: no lease has such an id.
carrying() {
  case $1 in *'
'*) return 0 ;; esac
  if [ -n "$lists" ]; then
    grep -lzxF -- "$1" /proc/[0-9]*/environ 2>/dev/null
  else
    for file in /proc/[0-9]*/environ; do
      { tr '\0' '\n' <"$file"; } 2>/dev/null | grep -qxF -- "$1" && echo "$file"
    done
  fi | while IFS=/ read -r _ _ pid _; do echo "$pid"; done
}

# Sets $start from the note that set_fence.sh leaves of a lease's start: empty if there is none, 0 if the host has booted
# since or the note cannot be understood. Sets $noted: the lease.
began() {
  start='' noted=''
  if [ ! -f "$1" ] || [ -L "$1" ]; then return 0; fi
  at=''
  { read -r _ at start noted <"$1"; } 2>/dev/null
  case $start in '' | *[!0-9]* | ????????????????*) start=0 ;; esac
  [ "$at" = "$boot" ] || start=0
}

# Makes $since the start that this note has, if that is earlier. A lease that began before the boot left nothing.
since_note() {
  began "$1"
  case $start in '' | 0) return 0 ;; esac
  if [ -z "$since" ] || [ "$start" -lt "$since" ]; then since=$start; fi
}

# Adds to $held the leases that these notes name: the slots that working copies hold for themselves. Nothing runs there but for
# the leases of the copies.
held_slots() {
  for note; do
    held_by=
    if [ -f "$note" ] && [ ! -L "$note" ]; then { read -r held_by <"$note"; } 2>/dev/null; fi
    held="$held$held_by "
  done
}

# Makes $rival the earliest start that these notes of live leases have, if that is earlier. Those in $held do not count.
rival_notes() {
  for note; do
    began "$note"
    [ -n "$start" ] || continue
    case $held in *" ${noted:-?} "*) continue ;; esac
    if [ -z "$rival" ] || [ "$start" -lt "$rival" ]; then rival=$start; fi
  done
}

# $lists: whether grep reads lists that end with NUL. busybox's does not.
lists='' own='' held=' ' boot=
if printf 'a\0b\0' | grep -qzxF b 2>/dev/null; then lists=yes; fi
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null

# Sets $uid, the real user, $gids, its groups, and $reads_all: whether the environment of every process can be read
# (CAP_SYS_PTRACE, bit 19).
uid='' gids=' ' reads_all=''
while read -r key value rest; do
  case $key in
  Uid:) uid=$value ;;
  Gid:) gids="$gids$value " ;;
  Groups:) gids="$gids$value $rest " ;;
  CapEff:)
    value=${value%????}
    case ${value#"${value%?}"} in [89a-f]) reads_all=yes ;; esac
    ;;
  esac
done 2>/dev/null </proc/$$/status

# Looks for processes of our own user that cannot be read (PR_SET_DUMPABLE: ssh-agent, gpg-agent) and began after the lease.
# Sets $mine: those to end; $unsure: those that began after another live lease as well; $young: whether one is there that the
# look before has not seen. Each counts from its second look on: a process is unreadable for a moment while it starts.
#
# These are not the lease's:
# - a process with a real group that is none of ours: another account with our user id, whose processes the kernel does not show us;
# - the login session of sshd: it is unreadable, and the leader of its session is another user's;
# - what sshd has just forked there, which has its name until it becomes the login shell (~/.ssh/rc may take seconds before);
# - a process in the session of a readable leader: the leader's environment answers for it;
# - the user's service manager, in a control group `init.scope`;
# - what is in a control group of a slot (cgroup.sh): the groups of this lease were ended before;
# - a process with the number of another lease as its limit of file locks.
unreadable() {
  mine=' ' unsure=' ' young=''
  if [ -z "$since" ] || [ -n "$reads_all" ]; then return 0; fi
  users=' ' hidden=' '
  for pid in $(grep -l "^Uid:[[:space:]]${uid}[[:space:]]" /proc/[0-9]*/status 2>/dev/null | tr -cd '0-9\n'); do
    users="$users$pid "
    { true <"/proc/$pid/environ"; } 2>/dev/null && continue
    gid=$(awk '/^Gid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null)
    case $gids in *" ${gid:-?} "*) hidden="$hidden$pid " ;; esac
  done
  [ "$hidden" != ' ' ] || return 0
  found=$(printf '%s\n' "$table" |
    awk -v users="$users" -v hidden="$hidden" -v since="$since" -v rival="$rival" -v own="$own" '
      { parent[$1] = $2; group[$1] = $3; session[$1] = $4; start[$1] = $5 }
      function others(leader) {
        return (leader in session) && !(index(users, " " leader " ") && index(hidden, " " leader " "))
      }
      END {
        for (pid in session) {
          if (!index(hidden, " " pid " ") || start[pid] + 0 < since + 0 || group[pid] == own) continue
          leader = session[pid]
          if (leader != pid && others(leader)) continue
          # A process of our own that is unreadable in a session of another: the login session of sshd.
          up = parent[pid]
          if (!(index(hidden, " " up " ") && (up in session) && session[up] != up && others(session[up]))) up = 0
          print pid, start[pid], up, (rival != "" && start[pid] + 0 >= rival + 0) ? "unsure" : "mine"
        }
      }' | while read -r pid start up whose; do
    if [ "$up" != 0 ]; then
      name='' login=''
      { read -r name <"/proc/$pid/comm" && read -r login <"/proc/$up/comm"; } 2>/dev/null
      [ -z "$name" ] || [ "$name" != "$login" ] || continue
    fi
    if grep -q -e '/init\.scope$' -e '/wharfinger/[^/]' "/proc/$pid/cgroup" 2>/dev/null; then continue; fi
    locks=$(awk '/^Max file locks / { print $4 }' "/proc/$pid/limits" 2>/dev/null)
    case $locks in
    [2-4]??????????????????) if [ "$locks" -ge 2305843009213693952 ] && [ "$locks" -lt 4611686018427387904 ]; then continue; fi ;;
    esac
    echo "$pid:$start:$whose"
  done)
  now=' '
  for each in $found; do
    whose=${each##*:} each=${each%:*}
    now="$now$each "
    case $former in
    *" $each "*) if [ "$whose" = mine ]; then mine="$mine${each%:*} "; else unsure="$unsure${each%:*} "; fi ;;
    *) young=yes ;;
    esac
  done
  former=$now
}

# Sets $all: what is to be ended. Adds to $groups each process group whose leader is marked: its members are the lease's,
# marked or not. Our own group is left out: a subshell shows the environment that its shell began with.
find_all() {
  marks=" $(marked | tr '\n' ' ')" all='' table=''
  # Without marks, only processes that cannot be read may be left.
  if [ "$marks$groups" != '  ' ] || { [ -n "$since" ] && [ -z "$reads_all" ]; }; then look; fi
  unreadable
  [ -n "$table" ] || return 0
  all=$(printf '%s\n' "$table" | awk -v marks="$marks$mine" -v groups="$groups" -v own="$own" '
    { pid[NR] = $1; group[NR] = $3 }
    $3 != own && $1 == $3 && index(marks, " " $1 " ") && !index(groups, " " $3 " ") { groups = groups $3 " " }
    END {
      printf "%s:", groups
      for (i = 1; i <= NR; i++)
        if (group[i] != own && (index(marks, " " pid[i] " ") || index(groups, " " group[i] " "))) printf " %s", pid[i]
    }')
  groups=${all%%:*}
  all=${all#*:}
}

# SIGTERM, two seconds of grace, SIGKILL, until looks in a row find nothing: two, or the number given. A process that forks
# during one look may be missed by it, hardly by two in a row.
end_all() {
  groups=' ' seen=' ' former=' ' ended=0 rounds=0 calm=0
  while :; do
    find_all
    if [ -z "$all$young" ]; then
      calm=$((calm + 1))
      [ $calm -lt "${1:-2}" ] || break
      continue
    fi
    calm=0
    if [ $rounds -ge 120 ]; then
      # Processes that only ever appear and vanish: none of them is known to be another's.
      [ -n "$all" ] || break
      names=
      for pid in $all; do
        name=
        { read -r name <"/proc/$pid/comm"; } 2>/dev/null
        names="$names $pid($name)"
      done
      printf 'still running after SIGKILL:%s\n' "$names" >&2
      exit 3
    fi
    for pid in $all; do
      if [ $rounds -ge 20 ]; then
        kill -s KILL "$pid" 2>/dev/null
      else
        case $seen in *" $pid "*) ;; *) kill -s TERM "$pid" 2>/dev/null ;; esac
      fi
      case $seen in *" $pid "*) ;; *) seen="$seen$pid " ended=$((ended + 1)) ;; esac
    done
    rounds=$((rounds + 1))
    sleep 0.1 2>/dev/null || { sleep 1 && rounds=$((rounds + 9)); }
  done
  if [ "$unsure" != ' ' ]; then
    echo "unreadable:$unsure" >&2
    exit 6
  fi
}
