# Removes the copy with all its notes.
#
# Arguments: the file beside its host that records where the copy lies, or empty; it goes last.
# Exits:     0; 93 (prelude.sh).
if [ -L "$D" ]; then rm -f -- "$D"; fi
if [ -e "$D" ]; then
  guard_mounts
  remove "$D"
fi
[ -z "$1" ] || rm -f -- "$1"
