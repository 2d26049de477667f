# Compares and writes the token of a slot. A library in front of another script's text.
#
# Sets:  $now, the token in the fence, or 0.
# Exits: 113 with that token on standard error, by `compare`, if it is greater than the one given.
# Needs: head, mv, tr; Linux for its /proc. Works under dash, bash and busybox, also with `set -u`.
# shellcheck shell=sh disable=SC2034

# Arguments: the fence, the token.
compare() {
  now=
  # A holder may have put a pipe there, which would never end, or a file without an end.
  if [ -f "$1" ] && [ ! -L "$1" ]; then now=$(head -c 30 <"$1" 2>/dev/null | tr -d '\0\n'); fi
  # Tokens are revisions, of at most 18 digits: a holder wrote anything else.
  case $now in '' | *[!0-9]* | ???????????????????*) now=0 ;; esac
  # So did it with a number that is 1,000,000,000 ahead.
  [ "$now" -le "$(($2 + 1000000000))" ] || now=0
  [ "$now" -le "$2" ] || {
    printf '%s\n' "$now" >&2
    exit 113
  }
}

# Notes the start of this shell as that of the lease, in clock ticks since the boot: what the lease starts begins later. No clock of
# the day is read. A repetition for the same token keeps the earlier time. Arguments: the note, the token, the lease.
note_start() {
  had='' at='' stat=''
  [ ! -f "$1" ] || { read -r had _ <"$1"; } 2>/dev/null || :
  [ "$had" != "$2" ] || return 0
  { read -r at </proc/sys/kernel/random/boot_id && read -r stat <"/proc/$$/stat"; } 2>/dev/null || return 0
  # shellcheck disable=SC2086 # Numbers.
  start=$(set -- ${stat##*) } && echo "${20}")
  printf '%s %s %s %s\n' "$2" "$at" "$start" "$3" >"$1.new" && mv -f -- "$1.new" "$1"
}

# Writes the token into the fence. Arguments: the fence, the token.
write_token() {
  printf '%s\n' "$2" >"$1.new.$$" && mv -f -- "$1.new.$$" "$1" && return 0
  rm -f -- "$1.new.$$" 2>/dev/null
  return 1
}
