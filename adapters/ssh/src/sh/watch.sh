# Ends a command's process group when its sshd is gone. Runs in the background, in a session of its own.
#
# Follows:   begun.sh
# Arguments: the id of the group's leader, when it began, the id of the leader's parent, when that began.
# Exits:     0.
# shellcheck shell=sh disable=SC2154
trap '' HUP INT TERM
cd /

# A parent that is gone already is one that died while this began: the loop asks before it waits.
leader=$1 leader_begun=$2 server=$3 server_begun=$4
while :; do
  if ! begun "$leader" || [ "$begun" != "$leader_begun" ]; then exit 0; fi
  if ! begun "$server" || [ "$begun" != "$server_begun" ]; then break; fi
  sleep 1 || exit 0
done
kill -s TERM -- "-$leader"
sleep 2
kill -s KILL -- "-$leader"
exit 0
