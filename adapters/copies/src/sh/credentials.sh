# Passes the pool's credentials to git: no argument, environment variable or file has them.
# A library in front of another script's text.
#
# Input:     nothing, if the host's own credentials count; or "ssh" and a time in seconds, then the key; or "https" and the origin
#            (scheme, host and port), then a line each for user and password.
# Exits:     by `login`: 93 (CREDENTIALS_REFUSED, CANNOT_CREATE), 127, ssh-agent or ssh-add is missing.
given=
drop_keys() { rm -rf -- "$keys"; }
stop_agent() { kill "$agent" 2>/dev/null || :; }
login() {
  [ -z "$given" ] || return 0
  given=yes
  read -r kind only || return 0
  case $kind in
  ssh)
    for t in ssh-agent ssh-add; do
      command -v $t >/dev/null 2>&1 || {
        echo "$t is missing" >&2
        exit 127
      }
    done
    # A short path: the address of a socket has at most 108 bytes (unix(7)).
    keys=$(mktemp -d /tmp/wharfinger.XXXXXXXX) || say CANNOT_CREATE "cannot make a directory in /tmp"
    at_end drop_keys
    # In the foreground, so that it stays in the script's process group and ends with it. It does not inherit the locks.
    ssh-agent -D -a "$keys/agent" >/dev/null 2>&1 </dev/null 7>&- 8>&- 9>&- &
    agent=$!
    at_end stop_agent
    i=0
    while [ ! -S "$keys/agent" ] && [ $i -lt 100 ]; do
      sleep 0.1 2>/dev/null || sleep 1
      i=$((i + 1))
    done
    # The agent forgets the key after that time, even if this script is killed.
    e=$(SSH_AUTH_SOCK=$keys/agent ssh-add -q -t "$only" - 2>&1) || say CREDENTIALS_REFUSED "ssh-add refuses the key: $e"
    # No other key, and no connection that a later command could use.
    GIT_SSH_COMMAND="$GIT_SSH_COMMAND -o IdentityAgent=$keys/agent -o IdentityFile=none -o ForwardAgent=no"
    GIT_SSH_COMMAND="$GIT_SSH_COMMAND -o ControlMaster=no -o ControlPath=none"
    ;;
  https)
    IFS= read -r user && IFS= read -r password || say CREDENTIALS_REFUSED "the credentials did not arrive at the host"
    keys=$(mktemp -d /tmp/wharfinger.XXXXXXXX) || say CANNOT_CREATE "cannot make a directory in /tmp"
    at_end drop_keys
    e=$(mkfifo "$keys/pipe" 2>&1) || say CANNOT_CREATE "$e"
    # Answers each question of git. It ends when no process has the other end.
    { while printf 'username=%s\npassword=%s\n\n' "$user" "$password"; do :; done; } >"$keys/pipe" 2>/dev/null </dev/null 7>&- 8>&- 9>&- &
    exec 6<"$keys/pipe"
    rm -rf -- "$keys"
    user='' password=''
    # For this server alone, not for the target of a redirect.
    conf "credential.$only.helper" '!while IFS= read -r line <&6 && [ -n "$line" ]; do printf "%s\n" "$line"; done; :'
    ;;
  esac
}
