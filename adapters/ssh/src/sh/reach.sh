# Says whether a directory could be made and used by this user. Makes nothing.
#
# Arguments: the directory, absolute.
# Prints:    the kind of system, if it can; otherwise the directory above it that cannot be written.
# Exits:     0; 1.
# shellcheck shell=sh
d=$1
while [ ! -e "$d" ]; do
  d=${d%/*}
  [ -n "$d" ] || d=/
done
if [ -d "$d" ] && [ -w "$d" ] && [ -x "$d" ]; then
  uname -sm
  exit 0
fi
printf '%s\n' "$d"
exit 1
