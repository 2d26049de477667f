# Writes a file, whole or not at all. The length is compared, since a connection that breaks looks like the end of the file.
#
# Arguments:      a temporary name in the same directory, the mode (octal), the file, the length in bytes.
# Standard input: the content.
# Exits:          0; 1, with the reason on standard error and nothing changed.
# shellcheck shell=sh
umask 077
if cat >"$1" && [ "$(($(wc -c <"$1")))" -eq "$4" ] && chmod "$2" -- "$1" && mv -f -- "$1" "$3"; then exit 0; fi
rm -f -- "$1"
exit 1
