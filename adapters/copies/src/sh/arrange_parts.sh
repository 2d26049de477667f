# Moves the parts of a copy into the tree, or out of it.
#
# Arguments: "clean", to remove other files beside them, "keep", or "look", to change nothing; then each part's directory
#            behind "+" (into the tree) or "-" (out of it).
# Prints:    with "look", the directories that are out of the tree, one a line.
# Exits:     0; 93 (prelude.sh).
guard_resource
policy=$1
shift
if [ "$policy" = look ]; then
  for d; do
    d=${d#?}
    p=$D/parts/$d/parked
    if [ -d "$p" ] && [ ! -L "$p" ] && [ ! -e "$T/$d" ] && [ ! -L "$T/$d" ]; then printf '%s\n' "$d"; fi
  done
  exit 0
fi
guard_mounts
if [ -L "$T" ] || [ ! -d "$T" ]; then
  remove "$T"
  e=$(mkdir -- "$T" 2>&1) || say CANNOT_CREATE "$e"
fi
chmod u+rwx "$T" 2>/dev/null
for word; do
  d=${word#?}
  M=$D/parts/$d
  make_notes
  at=$T/$d p=$M/parked
  only_dir "$p"
  # A directory in the place of a part that is out of the tree is not the part.
  if [ -d "$p" ] || [ -L "$at" ] || [ ! -d "$at" ]; then remove "$at"; fi
  case $word in
  +*) [ ! -d "$p" ] || move "$p" "$at" ;;
  -*) [ ! -d "$at" ] || move "$at" "$p" ;;
  esac
done
[ "$policy" = clean ] || exit 0
for f in "$T"/* "$T"/.[!.]* "$T"/..?*; do
  [ -e "$f" ] || [ -L "$f" ] || continue
  ours=
  for word; do
    [ "${f#"$T"/}" != "${word#+}" ] || ours=yes
  done
  [ -n "$ours" ] || remove "$f"
done
exit 0
