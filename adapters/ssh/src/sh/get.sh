# Prints the beginning of a file.
#
# Arguments: the file, how many bytes at most.
# Prints:    the bytes.
# Exits:     0; otherwise with the reason on standard error.
# shellcheck shell=sh
exec head -c "$2" <"$1"
