# Prints the announcement of the metadata service.
#
# Follows:   seen.sh, imds.sh
# Arguments: those of seen.sh and imds.sh.
# Prints:    a line of wharfinger_host::announce, or nothing.
# Exits:     0; otherwise as imds.sh, so that the previous announcement stays.
# shellcheck shell=sh disable=SC2154
# Prints the text of this key in $body. The keys are those below.
field() { printf '%s\n' "$body" | tr '{' '\n' | sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p' | head -n 1; }

if get spot/instance-action; then
  at=$(date -d "$(field time)" +%s 2>/dev/null) || at=+120
  printf 'interruption %s spot: %s\n' "$at" "$(field action)"
elif get events/maintenance/scheduled && [ "$(field State)" = active ]; then
  at=$(date -d "$(field NotBefore)" +%s 2>/dev/null) || exit 1
  printf 'maintenance %s scheduled: %s\n' "$at" "$(field Code)"
elif get events/recommendations/rebalance; then
  echo 'at-risk rebalance recommended'
fi
