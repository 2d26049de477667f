# Moves the submodules of a former lease out of the tree, which is then proved without them. restore_submodule.sh moves them back.
# The recorded path of a submodule counts only if it is a directory in the tree.
#
# Arguments: none.
# Prints:    the names of the metadata directories of the submodules that are out of the tree, one a line.
# Exits:     0; 93 (prelude.sh).
make_notes
only_dir "$M/sub"
[ -d "$M/sub" ] || exit 0
for s in "$M"/sub/*; do
  only_dir "$s"
  # The broker makes no other names.
  case ${s##*/} in
  *[!0-9a-f]*) remove "$s" ;;
  esac
  # Removes a submodule that no commit of the last 14 days has had.
  if [ -z "$(find "$s/path" -type f -mtime -14 2>/dev/null)" ]; then remove "$s"; fi
  [ -d "$s" ] || continue
  only_dir "$s/parked"
  if [ ! -d "$s/parked" ]; then
    path=$(head -c 4096 "$s/path")
    case /$path/ in
    //* | */../* | */./* | *//?* | */.[gG][iI][tT]/*) continue ;;
    esac
    at=$T/$path
    [ -d "$at/.git" ] && [ ! -L "$at" ] && (guard_way "$at") >/dev/null || continue
    move "$at" "$s/parked"
  fi
  printf '%s\n' "${s##*/}"
done
exit 0
