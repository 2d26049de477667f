# Ends a command's process group when its sshd is gone. Runs in the background, in a session of its own.
#
# Follows:   begun.sh
# Arguments: the id of the group's leader, the id of the leader's parent.
# Exits:     0.
# shellcheck shell=sh disable=SC2154
trap '' HUP INT TERM
cd /

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
