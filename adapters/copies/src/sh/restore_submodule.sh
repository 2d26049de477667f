# Moves a submodule from where park_submodules.sh left it to its place in the tree.
#
# Arguments: its path below the tree; the name of its metadata directory.
# Prints:    "there", or "new" if it has to be cloned.
# Exits:     0; 93 (prelude.sh).
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
