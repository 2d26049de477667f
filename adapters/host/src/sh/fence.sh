# Compares tokens. A library in front of another script's text.
#
# Sets:  $now, the token in the fence, or 0.
# Exits: 113 with that token on standard error, if it is greater than the one given.
# shellcheck shell=sh

# Arguments: the fence, the token.
compare() {
  now=
  { read -r now <"$1"; } 2>/dev/null
  # Tokens are revisions, of at most 18 digits: a holder wrote anything else.
  case $now in '' | *[!0-9]* | ???????????????????*) now=0 ;; esac
  [ "$now" -le "$2" ] || {
    printf '%s\n' "$now" >&2
    exit 113
  }
}
