# Finds, makes and ends the control groups of a slot. A library in front of another script's text.
#
# A slot's group is wharfinger/NAME in the tree of cgroup v2, below the topmost group on the way to our own that this user may
# write: the root of the tree for root, a delegated group for others. What runs in a slot's group itself nests below it.
# A controller that has a tree of its own (v1, hybrid hosts) has a group of the same name there. NAME is made of the fence's
# path, so that two directories on one machine never share a group.
#
# Where this user may write none, the user's service manager (systemd) has a unit whose group is delegated to the user. The groups
# of slots lie below it. A process of a login session may not move there by itself: the manager moves it.
#
# Expects: a fence: DIR/RESOURCE/.wharfinger/fence.SLOT of a host, DIR/RESOURCE/meta/fence of a working copy.
# Sets:    variables that begin with cg_. $cg_count: how many processes `cg_end` signalled.
# Exits:   3, by `cg_end`: processes outlive SIGKILL; 7, by `cg_end`: a group that was noted cannot be looked at.
# Needs:   awk, cksum, find, grep, sleep; Linux for its /proc; for the groups of a service manager timeout, and its systemctl,
#          systemd-run and busctl. Works under dash, bash and busybox.
# shellcheck shell=sh disable=SC2034
cg_lines='' cg_silent='' cg_unit=wharfinger-slots.service cg_newline='
'

# Sets $cg_name for a fence, and $cg_note, the note beside it; fails where a path is none that a broker makes.
cg_named() {
  cg_name=''
  case $1 in
  /*/*/.wharfinger/fence.*) cg_slot=${1##*/fence.} cg_resource=${1%/.wharfinger/fence.*} ;;
  /*/*/meta/fence) cg_slot=0 cg_resource=${1%/meta/fence} ;;
  *) return 1 ;;
  esac
  cg_note=${1%/*}/cgroup${1##*/fence} cg_resource=${cg_resource##*/}
  case $cg_slot in '' | *[!0-9]*) return 1 ;; esac
  case $cg_resource in '' | *[!A-Za-z0-9_-]*) return 1 ;; esac
  cg_sum=$(printf '%s' "$1" | cksum) || return 1
  cg_name=$cg_resource.$cg_slot.${cg_sum%% *}
}

# Sets $cg_mount, where the tree of this controller is mounted: "tree" for cgroup v2, or memory, cpu, pids of v1; and $cg_own,
# the path of our own group there. Fails if there is none.
cg_mounted() {
  cg_mount='' cg_own=''
  # A host may have thousands of mounts.
  [ -n "$cg_lines" ] || cg_lines=$(grep ' cgroup2\{0,1\} ' /proc/self/mounts 2>/dev/null)
  while read -r _ cg_at cg_type cg_options _; do
    case $cg_at in *\\*) continue ;; esac
    case $1:$cg_type in
    tree:cgroup2) cg_mount=$cg_at ;;
    tree:* | *:cgroup2) ;;
    *:cgroup) case ,$cg_options, in *,"$1",*) cg_mount=$cg_at ;; esac ;;
    esac
    [ -z "$cg_mount" ] || break
  done <<END
$cg_lines
END
  [ -n "$cg_mount" ] || return 1
  while IFS=: read -r _ cg_list cg_path; do
    case $1:,$cg_list, in tree:,,) cg_own=$cg_path ;; tree:*) ;; *,"$1",*) cg_own=$cg_path ;; esac
  done 2>/dev/null </proc/self/cgroup
  # Outside of what this namespace sees.
  case $cg_own/ in */../*) cg_own='' ;; esac
}

# Asks the user's service manager: runs a program of systemd with its address, for at most 10 s. By itself such a program waits 90 s
# for a manager that hangs.
cg_manager() {
  XDG_RUNTIME_DIR=$cg_runtime timeout 10 "$@" </dev/null 2>/dev/null
}

# Sets $cg_top to the delegated group of the service manager's unit, or fails with $cg_fault. "make": starts the unit if it is not
# there. Its process is a sleep in a group below, since a group with processes hands no controllers down.
cg_delegated() {
  cg_runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
  if [ ! -S "$cg_runtime/systemd/private" ] || ! command -v busctl >/dev/null; then
    cg_fault="$cg_fault, and has no service manager (loginctl enable-linger starts it; busctl asks it)"
    return 1
  fi
  if [ -n "$cg_silent" ]; then
    cg_fault="$cg_fault, and its service manager does not answer"
    return 1
  fi
  cg_waits=0
  while :; do
    # A manager that does not answer, as behind a socket that a dead one left, is asked once.
    cg_at=$(cg_manager systemctl --user show -p ControlGroup --value "$cg_unit") || {
      cg_silent=yes cg_fault="$cg_fault, and its service manager does not answer"
      return 1
    }
    # The number of a process, and not its group alone.
    if [ -n "$cg_at" ] && grep -q '^[0-9]' "$cg_mount$cg_at/keep/cgroup.procs" 2>/dev/null; then
      cg_top=$cg_mount$cg_at cg_scope=yes
      return 0
    fi
    [ "${1-}" = make ] && [ $cg_waits -lt 30 ] || break
    # shellcheck disable=SC2016 # For the shell of the unit. systemd would expand ${NAME} inside of a word.
    [ $cg_waits -gt 0 ] || cg_manager systemd-run --user --quiet --collect --unit="$cg_unit" -p Delegate=yes -p OOMPolicy=continue \
      -p TasksMax=infinity --description='Groups of the slots of leases' /bin/sh -c \
      'at=$0$(sed -n s/^0:://p /proc/self/cgroup)/keep && mkdir "$at" && echo 0 >"$at/cgroup.procs" && exec sleep 2147483647' \
      "$cg_mount" || :
    cg_waits=$((cg_waits + 1))
    sleep 0.1 2>/dev/null || sleep 1
  done
  cg_fault="$cg_fault, and its service manager does not keep the unit $cg_unit"
  return 1
}

# Has the service manager move a process into a group below that of its unit.
cg_attach() {
  cg_manager busctl --user call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
    AttachProcessesToUnit ssau "$cg_unit" "${1#*/"$cg_unit"}" 1 "$2" >/dev/null
}

# Sets $cg_top: the group below which this user may make others, and $cg_scope: "yes" if it is the service manager's; or fails with
# $cg_fault. "make", after the tree: has the manager start its unit.
cg_topmost() {
  cg_top='' cg_scope=''
  cg_mounted "$1" || {
    cg_fault="no tree of control groups is mounted for ${1#tree}"
    [ "$1" != tree ] || cg_fault='cgroup v2 is not mounted'
    return 1
  }
  cg_at=$cg_mount cg_rest=${cg_own#/}
  # Inside another lease all stays there, so that it ends with that lease.
  case $cg_own in */wharfinger/?*) cg_at=$cg_mount$cg_own cg_rest='' ;; esac
  while :; do
    if [ -w "$cg_at" ] && [ -w "$cg_at/cgroup.procs" ]; then
      cg_top=$cg_at
      return 0
    fi
    [ -n "$cg_rest" ] || break
    cg_at=$cg_at/${cg_rest%%/*}
    case $cg_rest in */*) cg_rest=${cg_rest#*/} ;; *) cg_rest='' ;; esac
  done
  cg_fault="this user may make no control groups below $cg_mount"
  [ "$1" = tree ] && cg_delegated "${2-}"
}

# Sets $cg_place, the directory of the groups of slots in the tree of cgroup v2, or fails with $cg_fault: a process is put there
# for a try.
cg_usable() {
  cg_place=''
  cg_topmost tree make || return 1
  cg_try=$cg_top/wharfinger/try.$$
  mkdir -p "$cg_try" 2>/dev/null || {
    cg_fault="no control group can be made below $cg_top"
    return 1
  }
  if [ -n "$cg_scope" ]; then
    sleep 60 &
    cg_pid=$!
    if cg_attach "$cg_try" "$cg_pid" && grep -q '^populated 1$' "$cg_try/cgroup.events" 2>/dev/null; then cg_place=$cg_top/wharfinger; fi
    kill -s KILL "$cg_pid" 2>/dev/null
    wait "$cg_pid" 2>/dev/null
  elif (echo 0 >"$cg_try/cgroup.procs" && exec grep -q '^populated 1$' "$cg_try/cgroup.events") 2>/dev/null; then
    cg_place=$cg_top/wharfinger
  fi
  [ -n "$cg_place" ] || cg_fault="no process can be put into a control group below $cg_top"
  rmdir "$cg_try" 2>/dev/null
  [ -n "$cg_place" ]
}

# Sets $cg_place, the directory of the groups whose "$1" (memory, cpu or pids) can be limited, or fails with $cg_fault. In a tree
# of cgroup v2 each group on the way hands the controller down.
cg_limitable() {
  cg_place=''
  if cg_topmost tree make && grep -qw "$1" "$cg_top/cgroup.controllers" 2>/dev/null && mkdir -p "$cg_top/wharfinger" 2>/dev/null; then
    for cg_at in "$cg_top" "$cg_top/wharfinger"; do
      grep -qw "$1" "$cg_at/cgroup.subtree_control" 2>/dev/null || (echo "+$1" >"$cg_at/cgroup.subtree_control") 2>/dev/null
    done
    if grep -qw "$1" "$cg_top/wharfinger/cgroup.subtree_control" 2>/dev/null; then
      cg_place=$cg_top/wharfinger
      return 0
    fi
  fi
  if cg_topmost "$1" && mkdir -p "$cg_top/wharfinger" 2>/dev/null; then
    cg_place=$cg_top/wharfinger
    return 0
  fi
  cg_fault="the controller \"$1\" of control groups is not available to this user"
  return 1
}

# Prints how often the kernel acted for the limit of a group: processes that it ended (memory), forks that it refused (pids).
cg_hits() {
  case $1 in
  memory) cat "$2/memory.events" "$2/memory.oom_control" 2>/dev/null | awk '$1 == "oom_kill" { n += $2 } END { print n + 0 }' ;;
  pids) awk '$1 == "max" { n += $2 } END { print n + 0 }' "$2/pids.events" 2>/dev/null || echo 0 ;;
  *) echo 0 ;;
  esac
}

# Sets the limit of a group: memory in bytes, cpu in thousandths of a processor, pids as a number. Fails with $cg_fault.
cg_set() {
  case $1 in
  memory)
    if [ -e "$2/memory.max" ]; then
      { echo "$3" >"$2/memory.max"; } 2>/dev/null && { [ ! -e "$2/memory.swap.max" ] || echo 0 >"$2/memory.swap.max"; } 2>/dev/null
    else
      # With swap: never below the limit without it, so each is tried first.
      { echo "$3" >"$2/memory.memsw.limit_in_bytes"; } 2>/dev/null
      { echo "$3" >"$2/memory.limit_in_bytes"; } 2>/dev/null && {
        [ ! -e "$2/memory.memsw.limit_in_bytes" ] || echo "$3" >"$2/memory.memsw.limit_in_bytes"
      } 2>/dev/null
    fi
    ;;
  cpu)
    if [ -e "$2/cpu.max" ]; then
      { echo "$(($3 * 100)) 100000" >"$2/cpu.max"; } 2>/dev/null
    else
      { echo 100000 >"$2/cpu.cfs_period_us" && echo "$(($3 * 100))" >"$2/cpu.cfs_quota_us"; } 2>/dev/null
    fi
    ;;
  pids) { echo "$3" >"$2/pids.max"; } 2>/dev/null ;;
  esac || {
    cg_fault="the limit of $1 cannot be set to $3 in $2"
    return 1
  }
}

# Makes the groups of the slot of a fence, and notes them. Fails with $cg_fault.
#
# Arguments: the fence; the token; "yes" if there must be a group in the tree of cgroup v2, or "no"; the limits of memory, cpu and
#            pids as in `cg_set`, each empty for none.
# The note:  "token TOKEN", "must yes|no", "limit KIND VALUE BASE" (BASE: `cg_hits` at this time), and "KIND GROUP" for each group
#            that a command has to enter: tree (scope, where the service manager moves it there), memory, cpu, pids.
cg_make() {
  cg_named "$1" || {
    cg_fault="$1 is no fence of a slot"
    return 1
  }
  cg_text="token $2${cg_newline}must $3$cg_newline" cg_tree=''
  if cg_topmost tree make && mkdir -p "$cg_top/wharfinger/$cg_name" 2>/dev/null; then
    cg_tree=$cg_top/wharfinger/$cg_name
    if [ -n "$cg_scope" ]; then cg_kind=scope; else cg_kind=tree; fi
    cg_text="$cg_text$cg_kind $cg_tree$cg_newline"
  elif [ "$3" = yes ]; then
    : "${cg_fault:="no control group can be made below $cg_top"}"
    return 1
  fi
  for cg_kind in memory cpu pids; do
    case $cg_kind in memory) cg_value=$4 ;; cpu) cg_value=$5 ;; *) cg_value=$6 ;; esac
    [ -n "$cg_value" ] || continue
    case $cg_value in *[!0-9]* | ???????????????????*)
      cg_fault="the limit of $cg_kind is no number"
      return 1
      ;;
    esac
    cg_limitable "$cg_kind" || return 1
    cg_group=$cg_place/$cg_name
    mkdir -p "$cg_group" 2>/dev/null || {
      cg_fault="no control group can be made below $cg_place"
      return 1
    }
    cg_set "$cg_kind" "$cg_group" "$cg_value" || return 1
    cg_text="${cg_text}limit $cg_kind $cg_value $(cg_hits "$cg_kind" "$cg_group")$cg_newline"
    [ "$cg_group" = "$cg_tree" ] || cg_text="$cg_text$cg_kind $cg_group$cg_newline"
  done
  printf '%s' "$cg_text" 2>/dev/null >"$cg_note.new" && mv -f -- "$cg_note.new" "$cg_note" 2>/dev/null && return 0
  cg_fault="$cg_note cannot be written"
  return 1
}

# Prints the limits that this note has, one KIND=VALUE HITS a line: HITS is `cg_hits` since the note was written.
cg_report() {
  if [ ! -f "$1" ] || [ -L "$1" ]; then return 0; fi
  while read -r cg_word cg_kind cg_value cg_base; do
    case $cg_word:$cg_kind in limit:memory | limit:cpu | limit:pids) ;; *) continue ;; esac
    case $cg_value:$cg_base in *[!0-9:]* | :* | *: | ????????????????????????*) continue ;; esac
    cg_group=$(while read -r cg_word cg_at; do
      case $cg_word in tree | scope | "$cg_kind") printf '%s\n' "$cg_at" ;; esac
    done <"$1" | tail -n 1)
    printf '%s=%s %s\n' "$cg_kind" "$cg_value" "$(($(cg_hits "$cg_kind" "$cg_group") - cg_base))"
  done 2>/dev/null <"$1"
}

# Prints the processes of a group and of the groups below it. 0 stands for one of a namespace that we do not see.
cg_members() {
  find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null | grep -v '^0$'
}

# Whether a process lives in a group or below it.
cg_busy() {
  if [ -f "$1/cgroup.events" ]; then
    ! grep -q '^populated 0$' "$1/cgroup.events"
  else
    [ -n "$(cg_members "$1")" ]
  fi
}

# Prints the groups of a slot that are there, one a line: where they belong, and those that the note beside the fence has.
# Exits 7 in place of it if one of those lies in no tree that is mounted.
cg_groups() {
  cg_named "$1" || return 0
  cg_mounts=$cg_newline cg_known=$cg_newline
  for cg_kind in tree memory cpu pids; do
    if cg_mounted "$cg_kind"; then cg_mounts="$cg_mounts$cg_mount$cg_newline"; fi
    if cg_topmost "$cg_kind"; then cg_known="$cg_known$cg_top/wharfinger/$cg_name$cg_newline"; fi
  done
  cg_unseen=''
  if [ -f "$cg_note" ] && [ ! -L "$cg_note" ]; then
    while read -r cg_kind cg_at; do
      case $cg_kind:$cg_at in
      *:*/../*) continue ;;
      tree:/*/wharfinger/"$cg_name" | scope:/*/wharfinger/"$cg_name" | memory:/*/wharfinger/"$cg_name" | cpu:/*/wharfinger/"$cg_name" | pids:/*/wharfinger/"$cg_name") ;;
      *) continue ;;
      esac
      cg_seen=''
      while read -r cg_mount; do
        case $cg_mount:$cg_at in :*) ;; *:"$cg_mount"/*) cg_seen=yes ;; esac
      done <<END
$cg_mounts
END
      [ -n "$cg_seen" ] || cg_unseen=$cg_at
      cg_known="$cg_known$cg_at$cg_newline"
    done 2>/dev/null <"$cg_note"
  fi
  [ -z "$cg_unseen" ] || {
    echo "the control group $cg_unseen cannot be looked at: its file system is not mounted" >&2
    exit 7
  }
  printf '%s' "$cg_known" | sort -u | while read -r cg_at; do
    if [ -n "$cg_at" ] && [ -d "$cg_at" ] && [ -e "$cg_at/cgroup.procs" ]; then printf '%s\n' "$cg_at"; fi
  done
}

# Prints what of these groups is still busy, one a line.
cg_still() {
  printf '%s\n' "$1" | while read -r cg_at; do
    if [ -n "$cg_at" ] && cg_busy "$cg_at"; then printf '%s\n' "$cg_at"; fi
  done
}

# Ends all that runs in the groups of the slot of this fence: SIGTERM, two seconds of grace, SIGKILL, until the kernel shows them
# empty. Removes them.
cg_end() {
  cg_count=0 cg_rounds=0 cg_termed=' '
  cg_mounted tree || :
  cg_all=$(cg_groups "$1") || exit 7
  cg_left=$cg_all
  while :; do
    cg_left=$(cg_still "$cg_left")
    [ -n "$cg_left" ] || break
    cg_pids=$(printf '%s\n' "$cg_left" | while read -r cg_at; do cg_members "$cg_at"; done | sort -u | tr '\n' ' ')
    if [ $cg_rounds -ge 120 ]; then
      echo "still running after SIGKILL: $cg_pids" >&2
      exit 3
    fi
    for cg_pid in $cg_pids; do
      case $cg_termed in
      *" $cg_pid "*) ;;
      *)
        [ $cg_rounds -ge 20 ] || kill -s TERM "$cg_pid" 2>/dev/null
        cg_termed="$cg_termed$cg_pid " cg_count=$((cg_count + 1))
        ;;
      esac
    done
    if [ $cg_rounds -ge 20 ]; then
      # All at once, of any user; one by one where the kernel is older than 5.14, and in a tree of v1.
      while read -r cg_at; do
        [ -n "$cg_at" ] && [ -f "$cg_at/cgroup.kill" ] && { echo 1 >"$cg_at/cgroup.kill"; } 2>/dev/null
      done <<END
$cg_left
END
      for cg_pid in $cg_pids; do kill -s KILL "$cg_pid" 2>/dev/null; done
    fi
    cg_rounds=$((cg_rounds + 1))
    sleep 0.1 2>/dev/null || { sleep 1 && cg_rounds=$((cg_rounds + 9)); }
  done
  while read -r cg_at; do
    [ -z "$cg_at" ] || find "$cg_at" -depth -type d -exec rmdir {} \; 2>/dev/null
  done <<END
$cg_all
END
  return 0
}
