# Replaces the tree by the finished clone.
#
# Arguments: the name of the clone, beside the metadata; the configuration of the copy; its object format.
# Exits:     0; 93 (prelude.sh).
new=$N/$1
printf '%s' "$2" >"$new/.git/config" || say CANNOT_CREATE "cannot write $new/.git/config"
printf '%s' "$2" >"$M/config" || say CANNOT_CREATE "cannot write $M/config"
printf '%s\n' "$3" >"$M/format" || say CANNOT_CREATE "cannot write $M/format"
mkdir -p "$new/.git/info" "$new/.git/hooks"
if [ "$T" != "$D/tree" ]; then
  # The tree around the part: a file or link in its place is removed.
  if [ -L "$D/tree" ] || { [ -e "$D/tree" ] && [ ! -d "$D/tree" ]; }; then remove "$D/tree"; fi
  e=$(mkdir -p -- "$D/tree" 2>&1) || say CANNOT_CREATE "$e"
  guard_way "$T"
fi
remove "$T"
# Written to the disk before the rename: after a loss of power the tree must not be incomplete.
sync -f "$new" 2>/dev/null || sync
mv -- "$new" "$T" || say CANNOT_CREATE "cannot rename $new"
rm -f -- "$M/suspect" "$D/meta/lease"
# A new clone needs new submodules.
remove "$M/sub"
