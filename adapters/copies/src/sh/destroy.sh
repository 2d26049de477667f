# Removes the copy with its metadata.
#
# Arguments: the file beside the host's directory that records the place of the copy, or empty. It is removed last.
# Exits:     0; 93 (prelude.sh).
if [ -L "$D" ]; then rm -f -- "$D"; fi
if [ -e "$D" ]; then
  guard_mounts
  remove "$D"
fi
[ -z "$1" ] || rm -f -- "$1"
