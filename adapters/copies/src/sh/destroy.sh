# Removes the copy and all that is ours of it; last the note $1, if there is one.
if [ -L "$D" ]; then rm -f -- "$D"; fi
if [ -e "$D" ]; then
  guard_mounts
  remove "$D"
fi
[ -z "$1" ] || rm -f -- "$1"
