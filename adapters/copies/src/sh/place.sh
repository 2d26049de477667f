# Puts a submodule in its place in the tree, from where park.sh left it, if it is there. $1: its path below the tree, $2: the
# name of its notes. Prints "there", or "new" if one must be made.
guard
s=$M/sub/$2 at=$T/$1
guard_way "$at"
only_dir "$M/sub"
only_dir "$s"
e=$({ mkdir -p -- "$s" && printf '%s\n' "$1" >"$s/path.new" && mv -f -- "$s/path.new" "$s/path"; } 2>&1) ||
  say CANNOT_CREATE "$e"
only_dir "$s/parked"
if [ -d "$s/parked" ]; then
  remove "$at"
  move "$s/parked" "$at"
fi
if [ -d "$at/.git" ] && [ ! -L "$at" ]; then echo there; else echo new; fi
