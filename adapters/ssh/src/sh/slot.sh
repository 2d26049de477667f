#!/bin/sh
# Opens and closes the logins of leases on a host, at /usr/local/lib/wharfinger/slot. The broker runs it as root, or by sudo.
#
# Arguments: version
#            grant USER LEASE TOKEN NUMBER SECONDS OPTIONS FENCE DIR
#            revoke USER LEASE TOKEN
#            sweep USER...
#            join LEASE PID
# Prints:    version: now, users, enter and slot (SHA-256), one KEY=VALUE a line. grant: dir=DIRECTORY, where the lease works.
#            revoke: ended=COUNT, the processes that were ended.
# Exits:     0; 2, an argument is wrong; 3, processes outlive SIGKILL; 5, a file cannot be written or removed; 8, the user is none
#            that host-setup made; 113 with the later token on standard error: a later lease has the user.
# Needs:     root; awk, date, find, grep; Linux for its /proc. Works under dash, bash and busybox.
#
# A note for each lease is in leases/. principals/USER is made from the notes, and is what sshd asks. A user with a home of its own
# ($lib/users) serves one lease at a time: all that runs as this user ends with the lease, and the home is made anew.
# shellcheck shell=sh
lib=/usr/local/lib/wharfinger run=/run/wharfinger-logins
newline='
'
umask 022
unset TZ WHARFINGER_LEASE
fail() {
  printf '%s\n' "$2" >&2
  exit "$1"
}

# Refuses an argument that is empty or has a character outside of the set.
word() { case $1 in '' | *[!A-Za-z0-9_-]*) fail 2 "$2 is no name: $1" ;; esac }
number() { case $1 in '' | *[!0-9]* | ????????????????????*) fail 2 "$2 is no number: $1" ;; esac }
path() { case $1 in *"$newline"* | *'"'*) fail 2 "$2 is no path" ;; /*) ;; *) fail 2 "$2 is not absolute: $1" ;; esac }

# Sets $home (or -), $uid and $gid of a user that host-setup made.
known() {
  word "$1" user
  home=''
  while read -r name at; do
    [ "$name" != "$1" ] || home=$at
  done 2>/dev/null <"$lib/users"
  [ -n "$home" ] || fail 8 "$1 is none of the users in $lib/users"
  uid=$(id -u "$1" 2>/dev/null) && gid=$(id -g "$1" 2>/dev/null) || fail 8 "this host has no user $1"
}

# One change of a user at a time.
lock() {
  for place in "$run" "$run/leases" "$run/principals"; do
    [ -d "$place" ] || mkdir -m 0751 "$place" 2>/dev/null || [ -d "$place" ] || fail 5 "$place cannot be made"
  done
  held=$run/lock.$1 tries=0
  until mkdir "$held" 2>/dev/null; do
    by=''
    { read -r by <"$held/pid"; } 2>/dev/null
    case $by in '' | *[!0-9]*) by=0 ;; esac
    tries=$((tries + 1))
    # One that was killed has left it.
    if [ $tries -ge 20 ] && { [ "$by" = 0 ] || ! kill -s 0 "$by" 2>/dev/null; }; then rm -rf -- "$held"; fi
    [ $tries -lt 3000 ] || fail 5 "$held stays; process $by has it"
    sleep 0.1 2>/dev/null || sleep 1
  done
  echo $$ >"$held/pid"
  trap 'rm -rf -- "$held"' EXIT
  trap 'exit 1' HUP INT TERM
}

# Writes standard input to a file, aside and by rename. The user's group reads it: sshd looks as the user.
write() {
  new=${1%/*}/.new.${1##*/}
  (umask 077 && cat >"$new") && chgrp -- "$gid" "$new" && chmod 0640 "$new" && mv -f -- "$new" "$1" && return 0
  rm -f -- "$new"
  fail 5 "$1 cannot be written"
}

# Sets $of, $token_of, $until and $options from the note of a lease.
read_note() {
  of='' token_of=0 until=0 options=''
  while read -r key value; do
    case $key in user) of=$value ;; token) token_of=$value ;; until) until=$value ;; options) options=$value ;; esac
  done 2>/dev/null <"$1"
}

# Writes the principals of a user: a line for each note of a lease, but for the lease $2. Notes whose time is over go.
rebuild() {
  now=$(date +%s) lines=''
  for note in "$run"/leases/*; do
    [ -f "$note" ] || continue
    read_note "$note"
    { [ "$of" = "$1" ] && [ "${note##*/}" != "$2" ]; } || continue
    if [ "$until" -le "$now" ]; then
      rm -f -- "$note"
      continue
    fi
    # Local time, which every sshd understands.
    end=$(date -d "@$until" +%Y%m%d%H%M%S) || fail 5 'date cannot print a time'
    lines="${lines}restrict$options,command=\"exec $lib/enter ${note##*/}\",expiry-time=\"$end\" ${note##*/}$newline"
  done
  if [ -n "$lines" ]; then
    printf '%s' "$lines" | write "$run/principals/$1"
  else
    rm -f -- "$run/principals/$1" || fail 5 "$run/principals/$1 cannot be removed"
  fi
}

# Removes the principals of a user, then the notes of all its leases.
shut_out() {
  rm -f -- "$run/principals/$1" || fail 5 "$run/principals/$1 cannot be removed"
  for note in "$run"/leases/*; do
    [ -f "$note" ] || continue
    read_note "$note"
    [ "$of" != "$1" ] || rm -f -- "$note" || fail 5 "$note cannot be removed"
  done
}

# Ends with 113 if a user with a home serves a later lease.
later() {
  [ "$home" != - ] || return 0
  for note in "$run"/leases/*; do
    [ -f "$note" ] || continue
    read_note "$note"
    { [ "$of" = "$1" ] && [ "${note##*/}" != "$2" ]; } || continue
    [ "$token_of" -le "$3" ] || fail 113 "$token_of"
  done
}

# Prints the living processes of $uid, and of sshd those that are letting this user in.
theirs() {
  grep -lE "^Uid:.*[[:space:]]${uid}([[:space:]]|\$)" /proc/[0-9]*/status 2>/dev/null
  grep -laE "^sshd(-session|-auth)?: $1 \\[" /proc/[0-9]*/cmdline 2>/dev/null | while IFS=/ read -r _ _ pid _; do
    grep -l '^Uid:[[:space:]]0[[:space:]]' "/proc/$pid/status" 2>/dev/null
  done
}
living() {
  theirs "$1" | sort -u | while IFS=/ read -r _ _ pid _; do
    grep -q '^State:[[:space:]]*[ZX]' "/proc/$pid/status" 2>/dev/null || printf '%s\n' "$pid"
  done
}

# Ends all that runs as a user, and the logins that are under way: SIGTERM, two seconds of grace, SIGKILL, until two looks in a row
# find nothing. Sets $ended.
end_user() {
  ended=0 calm=0 seen=' ' begun=$(date +%s)
  while [ $calm -lt 2 ]; do
    pids=$(living "$1")
    if [ -z "$pids" ]; then
      calm=$((calm + 1))
      continue
    fi
    calm=0 spent=$(($(date +%s) - begun))
    [ $spent -lt 60 ] || fail 3 "still running as $1 after SIGKILL: $(printf '%s' "$pids" | tr '\n' ' ')"
    for pid in $pids; do
      case $seen in
      *" $pid "*) ;;
      *)
        seen="$seen$pid " ended=$((ended + 1))
        [ $spent -ge 2 ] || kill -s TERM "$pid" 2>/dev/null
        ;;
      esac
    done
    if [ $spent -ge 2 ]; then
      # In one step, so that what forks faster than it is looked for ends too.
      [ "$uid" -gt 0 ] && command -v setpriv >/dev/null 2>&1 &&
        setpriv --reuid "$uid" --regid "$gid" --clear-groups /bin/sh -c 'kill -s KILL -- -1' 2>/dev/null
      # shellcheck disable=SC2086 # Numbers.
      kill -s KILL $pids 2>/dev/null
    fi
    sleep 0.1 2>/dev/null || sleep 1
  done
}

# Removes what a user left outside of its home, and the home.
sweep_user() {
  rm -f -- "/var/lib/systemd/linger/$1"
  for place in /tmp /var/tmp /dev/shm /run/lock "/run/user/$uid" /var/spool/cron /var/spool/at /var/mail; do
    [ -d "$place" ] && find "$place" -xdev -depth ! -path "$place" -user "$uid" -delete 2>/dev/null
  done
  for kind in shm:-m msg:-q sem:-s; do
    awk -v uid="$uid" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "uid") at = i } NR > 1 && $at == uid { print $2 }' \
      "/proc/sysvipc/${kind%:*}" 2>/dev/null | while read -r id; do ipcrm "${kind#*:}" "$id" 2>/dev/null; done
  done
  # A file system that the user mounted (FUSE).
  grep -F " $home/" /proc/self/mounts 2>/dev/null | while read -r _ at _; do umount -l -- "$at" 2>/dev/null; done
  rm -rf -- "$home" || fail 5 "$home cannot be removed"
}

grant() {
  [ $# = 8 ] || fail 2 'grant: USER LEASE TOKEN NUMBER SECONDS OPTIONS FENCE DIR'
  user=$1 lease=$2 token=$3 marks=$4 seconds=$5 wanted=$6 fence=$7 dir=$8
  known "$user"
  word "$lease" lease
  number "$token" token
  number "$marks" number
  number "$seconds" seconds
  case $wanted in *[!a-z,-]*) fail 2 "options: $wanted" ;; esac
  path "$fence" fence
  path "$dir" directory
  lock "$user"
  later "$user" "$lease" "$token"
  if [ "$home" != - ]; then
    dir=$home
    # A repetition leaves what runs alone.
    read_note "$run/leases/$lease"
    if [ "$of:$token_of" != "$user:$token" ] || [ ! -d "$home" ]; then
      shut_out "$user"
      end_user "$user"
      sweep_user "$user"
      mkdir -p "${home%/*}" && mkdir -m 0700 "$home" && chown -- "$uid:$gid" "$home" || fail 5 "$home cannot be made"
    fi
  fi
  write "$run/leases/$lease" <<END
user $user
token $token
number $marks
until $(($(date +%s) + seconds))
options $wanted
fence $fence
dir $dir
END
  rebuild "$user" ''
  if [ "$home" != - ] && command -v setpriv >/dev/null 2>&1; then
    setpriv --reuid "$uid" --regid "$gid" --clear-groups test -r "$fence" ||
      fail 5 "$user cannot read $fence: let others pass the directories above it"
  fi
  printf 'dir=%s\n' "$dir"
}

revoke() {
  [ $# = 3 ] || fail 2 'revoke: USER LEASE TOKEN'
  user=$1 lease=$2 token=$3 ended=0
  known "$user"
  word "$lease" lease
  number "$token" token
  lock "$user"
  later "$user" "$lease" "$token"
  # First the way in, then those who came in.
  if [ "$home" = - ]; then
    rebuild "$user" "$lease"
    rm -f -- "$run/leases/$lease" || fail 5 "$run/leases/$lease cannot be removed"
  else
    shut_out "$user"
    end_user "$user"
    sweep_user "$user"
  fi
  printf 'ended=%s\n' "$ended"
}

# For a host that begins anew: these users, which have homes of their own, serve no lease.
sweep() {
  for user; do
    (
      known "$user"
      [ "$home" != - ] || exit 0
      lock "$user"
      shut_out "$user"
      end_user "$user"
      sweep_user "$user"
    ) || exit
  done
}

# Puts a process of a lease's user into the control groups of the slot, at the user's own request by sudo.
join() {
  [ $# = 2 ] || fail 2 'join: LEASE PID'
  word "$1" lease
  number "$2" process
  read_note "$run/leases/$1"
  [ -n "$of" ] || fail 113 'the lease is over'
  known "$of"
  [ "${SUDO_UID-}" = "$uid" ] && grep -q "^Uid:[[:space:]]${uid}[[:space:]]" "/proc/$2/status" || fail 2 'not your process'
  fence=$(sed -n 's/^fence //p' "$run/leases/$1")
  beside=${fence%/*}/cgroup${fence##*/fence}
  if [ ! -f "$beside" ] || [ -L "$beside" ]; then exit 0; fi
  while read -r kind group _; do
    case $kind:$group in
    tree:*/../* | memory:*/../* | cpu:*/../* | pids:*/../*) fail 2 "$group" ;;
    tree:/sys/fs/cgroup/*/wharfinger/* | memory:/sys/fs/cgroup/*/wharfinger/* | cpu:/sys/fs/cgroup/*/wharfinger/* | \
      pids:/sys/fs/cgroup/*/wharfinger/* | *:/sys/fs/cgroup/wharfinger/*)
      echo "$2" >"$group/cgroup.procs" || exit 5
      ;;
    esac
  done <"$beside"
}

version() {
  sum() { sha256sum "$1" 2>/dev/null | cut -d ' ' -f 1; }
  users=''
  while read -r name _; do
    id -u "$name" >/dev/null 2>&1 && users="$users $name"
  done 2>/dev/null <"$lib/users"
  printf 'now=%s\nusers=%s\nenter=%s\nslot=%s\nend=yes\n' "$(date +%s)" "${users# }" "$(sum "$lib/enter")" "$(sum "$lib/slot")"
}

verb=${1-}
[ $# = 0 ] || shift
[ "$(id -u)" = 0 ] || fail 2 'this needs root'
case $verb in
version | grant | revoke | sweep | join) "$verb" "$@" ;;
*) fail 2 'slot: version, grant, revoke, sweep or join' ;;
esac
