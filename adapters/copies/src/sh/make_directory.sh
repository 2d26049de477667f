# Makes the copy's directory with its marker, and removes incomplete clones.
#
# Arguments: MB that must be free; the file beside the host's directory that records the place of the copy, or empty; the
#            host's directory if the copy lies in it, or empty.
# Exits:     0; 1, git was killed; 93, 127 (prelude.sh).
have_git
v=$(git version) || {
  # A git that was killed is not a missing one.
  case $? in 126 | 127) exit 127 ;; *) exit 1 ;; esac
}
v=${v#git version }
major=${v%%.*}
rest=${v#*.}
minor=${rest%%.*}
case $major$minor in *[!0-9]* | '') say GIT_TOO_OLD "the version of git is unknown: $v" ;; esac
if [ "$major" -lt 2 ] || { [ "$major" = 2 ] && [ "$minor" -lt 36 ]; }; then
  say GIT_TOO_OLD "git is $v; 2.36 or newer is required"
fi
[ -z "$L" ] || command -v git-lfs >/dev/null 2>&1 || say LFS_MISSING "the host has no git-lfs, and the pool has lfs = true"
[ ! -L "$D" ] || rm -f -- "$D"
O=$D/meta
if [ -e "$D" ] && [ ! -d "$D" ]; then remove "$D"; fi
if [ -d "$D" ]; then
  guard_mounts
  m=$(cat "$O/marker" 2>/dev/null)
  if [ "$m" != "$R" ] || [ -L "$O" ]; then remove "$D"; fi
fi
[ -z "$3" ] || [ -d "$3" ] || say HOST_DIRECTORY_MISSING "$3, the directory of the host, is not there"
e=$(mkdir -p -- "$O" 2>&1) || say CANNOT_CREATE "$e"
make_notes
chmod 700 "$M"
for f in "$N"/new.*; do remove "$f"; done
guard_disk "$D" "$1"
# The name has the process id: the parts of a copy are made in parallel.
e=$({ printf '%s\n' "$R" >"$O/marker.$$" && mv -f -- "$O/marker.$$" "$O/marker"; } 2>&1) || say CANNOT_CREATE "$e"
if [ -n "$2" ] && [ -d "${2%/*}" ]; then
  e=$({ printf '%s\n' "$D" >"$2.new" && mv -f -- "$2.new" "$2"; } 2>&1) || say CANNOT_CREATE "$e"
fi
