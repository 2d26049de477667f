# Puts the finished clone in the tree's place.
#
# Arguments: its name beside the notes; the configuration of the copy; its object format.
# Exits:     0; 93 (prelude.sh).
new=$N/$1
printf '%s' "$2" >"$new/.git/config" || say CANNOT_CREATE "cannot write $new/.git/config"
printf '%s' "$2" >"$M/config" || say CANNOT_CREATE "cannot write $M/config"
printf '%s\n' "$3" >"$M/format" || say CANNOT_CREATE "cannot write $M/format"
mkdir -p "$new/.git/info" "$new/.git/hooks"
if [ "$T" != "$D/tree" ]; then
  # The tree around it: whatever stands in its place is none.
  if [ -L "$D/tree" ] || { [ -e "$D/tree" ] && [ ! -d "$D/tree" ]; }; then remove "$D/tree"; fi
  e=$(mkdir -p -- "$D/tree" 2>&1) || say CANNOT_CREATE "$e"
  guard_way "$T"
fi
remove "$T"
# On the disk before it has its name: a host that loses power must not come up with a tree that only looks whole.
sync -f "$new" 2>/dev/null || sync
mv -- "$new" "$T" || say CANNOT_CREATE "cannot rename $new"
rm -f -- "$M/suspect" "$D/meta/lease"
# With a new copy come new submodules.
remove "$M/sub"
