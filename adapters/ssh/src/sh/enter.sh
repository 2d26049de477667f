#!/bin/sh
# Lets a session of a lease's holder in: the forced command of each login by certificate, at /usr/local/lib/wharfinger/enter.
#
# Arguments: the lease.
# Expects:   the session's own command in SSH_ORIGINAL_COMMAND, or none for a login shell; the note that slot.sh keeps of the lease.
# Sets:      WHARFINGER_LEASE, WHARFINGER_TOKEN, WHARFINGER_FENCE and WHARFINGER_PATH in the environment of the session.
# Exits:     as the session; 113 if the lease is over, if its slot belongs to another lease, or if a control group that the lease
#            must be in cannot be entered.
#
# No text of the holder is parsed here. The user's own shell takes it as one argument, as sshd would give it.
# shellcheck shell=sh
lib=/usr/local/lib/wharfinger run=/run/wharfinger-logins
lease=${1-} said=${SSH_ORIGINAL_COMMAND-} has_said=${SSH_ORIGINAL_COMMAND+yes}
unset SSH_ORIGINAL_COMMAND
refuse() {
  printf 'wharfinger: refused: %s\n' "$1" >&2
  exit 113
}
case $lease in '' | *[!A-Za-z0-9_-]*) refuse 'this login names no lease' ;; esac

token='' number='' fence='' dir=''
while read -r key value; do
  case $key in
  token) token=$value ;;
  number) number=$value ;;
  fence) fence=$value ;;
  dir) dir=$value ;;
  esac
done 2>/dev/null <"$run/leases/$lease"
[ -n "$token" ] || refuse "lease $lease is over on this host"

# The mark comes before the look at the fence, and so does the control group: the clean-up that takes the fence away finds all
# that has passed it.
export WHARFINGER_LEASE="$lease" WHARFINGER_TOKEN="$token" WHARFINGER_FENCE="$fence" WHARFINGER_PATH="$dir"
beside=${fence%/*}/cgroup${fence##*/fence} shut='' must=''
if [ -f "$beside" ] && [ ! -L "$beside" ]; then
  while read -r kind group _; do
    case $kind in
    tree | memory | cpu | pids)
      { echo 0 >"$group/cgroup.procs"; } 2>/dev/null || shut="$shut $group"
      ;;
    must) [ "$group" != yes ] || must=yes ;;
    limit) must=yes ;;
    esac
  done 2>/dev/null <"$beside"
fi
# A slot user may not move itself there, and root may do it for it.
if [ -n "$shut" ] && command -v sudo >/dev/null 2>&1 && sudo -n "$lib/slot" join "$lease" $$ >/dev/null 2>&1; then shut=''; fi
if [ -n "$shut" ] && [ -n "$must" ]; then
  refuse "$(id -un 2>/dev/null) cannot enter the control group of its slot,$shut; see docs/fencing.md"
fi

now=''
{ read -r now <"$fence"; } 2>/dev/null
if [ "$now" != "$token" ]; then
  if [ -n "$now" ]; then now="token $now"; else now='no lease'; fi
  refuse "this lease has token $token, and the slot belongs to $now"
fi
cd -- "$dir" 2>/dev/null || refuse "the directory of the slot, $dir, cannot be entered"

# As guard.sh: it marks a process that shows no environment.
case $number in
'' | *[!0-9]*) ;;
*)
  # shellcheck disable=SC3045
  ulimit -S -w "$number" 2>/dev/null || ulimit -S -x "$number" 2>/dev/null || true
  ;;
esac

shell=${SHELL:-/bin/sh}
[ -n "$has_said" ] || exec "$shell" -l
# sshd's own SFTP server is no program. Its arguments are sshd's, not the holder's.
case $said in
internal-sftp | 'internal-sftp '*)
  for server in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/ssh/sftp-server /usr/libexec/sftp-server; do
    [ ! -x "$server" ] || exec "$server"
  done
  refuse 'this host has no sftp-server beside the one inside sshd'
  ;;
esac
exec "$shell" -c "$said"
