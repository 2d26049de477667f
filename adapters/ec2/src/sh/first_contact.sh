# Prepares an instance for its first login: closes the metadata service to all users but two, and makes a host key of its own. The key
# of the user data is replaced once the broker asks for it.
#
# Runs:      as root, at the first boot, until the key is replaced.
# Arguments: the type of the host key; the broker's user; `closed` or `open`, for the metadata service.
# Reads:     /run/wharfinger/rekey, which the broker's user makes. $WHARFINGER_ROOT stands for / and $WHARFINGER_RELOAD is the program
#            that reloads sshd, on hosts outside of EC2.
# Writes:    /run/wharfinger-boot/state: `host_key TYPE KEY` and `metadata closed|open|failed`; /run/wharfinger-boot/done at the end.
# Exits:     0; 1, the key could not be made or installed.
# shellcheck shell=sh
set -u
umask 022
root=${WHARFINGER_ROOT:-}
kind=$1 user=$2 metadata=$3
own=$root/run/wharfinger-boot
key=$root/etc/ssh/ssh_host_${kind}_key

# Lets root and the broker's user alone find a way to an address of the metadata service. The route of a packet depends on the user that
# opened its socket. Rules of protocol `kernel` are left alone by systemd-networkd.
close() {
  ip "$1" rule add pref 100 protocol kernel to "$2" uidrange 0-0 lookup main || return 1
  [ "$3" = 0 ] || ip "$1" rule add pref 100 protocol kernel to "$2" uidrange "$3-$3" lookup main || return 1
  ip "$1" rule add pref 101 protocol kernel to "$2" prohibit
}

reload() {
  if [ -n "${WHARFINGER_RELOAD:-}" ]; then
    "$WHARFINGER_RELOAD"
  else
    systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service 2>/dev/null || kill -s HUP "$(cat /run/sshd.pid)"
  fi
}

mkdir -p "$own" || exit 1
if [ "$metadata" = closed ]; then
  metadata=failed
  if id=$(id -u "$user") && close -4 169.254.169.254 "$id"; then
    # A kernel without IPv6 has no such address.
    if [ ! -e /proc/net/if_inet6 ] || close -6 fd00:ec2::254 "$id"; then metadata=closed; fi
  fi
fi
rm -f "$key.next" "$key.next.pub"
ssh-keygen -q -t "$kind" -N '' -C '' -f "$key.next" || exit 1
{
  printf 'host_key '
  cat "$key.next.pub"
  printf 'metadata %s\n' "$metadata"
} >"$own/state.new" && mv -f "$own/state.new" "$own/state" || exit 1

until [ -e "$root/run/wharfinger/rekey" ]; do sleep 0.2; done
mv -f "$key.next.pub" "$key.pub" && mv -f "$key.next" "$key" || exit 1
if command -v restorecon >/dev/null 2>&1; then restorecon "$key" "$key.pub"; fi
reload || exit 1
# The copies of the user data have the key that was replaced.
rm -f "$root"/var/lib/cloud/instances/*/user-data.txt "$root"/var/lib/cloud/instances/*/user-data.txt.i \
  "$root"/var/lib/cloud/instances/*/cloud-config.txt "$root"/var/lib/cloud/instances/*/obj.pkl
: >"$own/done"
