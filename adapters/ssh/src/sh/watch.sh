# Ends a command's process group when its sshd is gone. Runs in the background, in a session of its own.
#
# Arguments: the id of the group's leader, the id of the leader's parent.
# Exits:     0.
#
# A process is the same as before only if it began at the same time (field 22 of its stat), since ids come again.
# shellcheck shell=sh
trap '' HUP INT TERM
cd /

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

leader=$1 server=$2
begun "$leader" || exit 0
leader_begun=$begun
begun "$server" || exit 0
server_begun=$begun
while sleep 1; do
  if ! begun "$leader" || [ "$begun" != "$leader_begun" ]; then exit 0; fi
  if ! begun "$server" || [ "$begun" != "$server_begun" ]; then break; fi
done
kill -s TERM -- "-$leader"
sleep 2
kill -s KILL -- "-$leader"
exit 0
