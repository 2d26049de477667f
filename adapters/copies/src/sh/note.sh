# Prints the note $1 of ours, if there is one that can be read: a pipe in its place would never be.
[ -f "$M/$1" ] && [ ! -L "$M/$1" ] || exit 0
exec head -c 4096 -- "$M/$1"
