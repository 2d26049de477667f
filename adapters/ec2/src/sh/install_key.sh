# Asks an instance to use its own host key, and waits for it at most ten seconds.
#
# Arguments: none.
# Reads:     /run/wharfinger-boot/done. $WHARFINGER_ROOT stands for / on hosts outside of EC2.
# Writes:    /run/wharfinger/rekey
# Exits:     0, the key is installed; 1, not yet.
# shellcheck shell=sh
root=${WHARFINGER_ROOT:-}
: >"$root/run/wharfinger/rekey" || exit 1
left=100
until [ -e "$root/run/wharfinger-boot/done" ]; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || exit 1
  sleep 0.1
done
