# Prints a note of the copy. A note that is no plain file counts as missing: reading a pipe would never end.
#
# Arguments: the note's name.
# Prints:    its first 4096 bytes.
# Exits:     0.
[ -f "$M/$1" ] && [ ! -L "$M/$1" ] || exit 0
exec head -c 4096 -- "$M/$1"
