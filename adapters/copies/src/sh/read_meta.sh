# Prints a file of the copy's metadata. One that is no plain file counts as missing: reading a pipe would never end.
#
# Arguments: the name of the file.
# Prints:    its first 4096 bytes.
# Exits:     0.
[ -f "$M/$1" ] && [ ! -L "$M/$1" ] || exit 0
exec head -c 4096 -- "$M/$1"
