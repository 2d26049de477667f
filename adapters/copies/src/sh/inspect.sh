# Compares the copy with the one that was made, and reports the first difference. A holder may configure its copy, so the
# configuration is compared only without a lease.
#
# Arguments: the configuration of the copy; MB that must be free; "deep" to hash all objects, or "quick".
# Exits:     0; 93, with the state found; 127 (prelude.sh).
guard
have_git
if [ -e "$M/suspect" ] || [ -L "$M/suspect" ]; then
  [ -f "$M/suspect" ] || say PROOF_FAILED "$M/suspect is not a file"
  s=$(head -c 1000 "$M/suspect")
  case $s in 'ORIGIN_FORMAT: '*) say ORIGIN_FORMAT "${s#*: }" ;; esac
  say PROOF_FAILED "$s"
fi
if [ -e "$G/shallow" ] || [ -L "$G/shallow" ]; then
  [ -n "$H" ] || say SHALLOW "$G/shallow cuts off the history"
  fit_shallow "$G/shallow" || say SHALLOW "$G/shallow is not a list of commits"
fi
[ ! -e "$G/commondir" ] || say GIT_DIR_BROKEN "$G/commondir leads to another repository"
# Git would wait at a pipe, and would read a ref of any length.
odd=$(
  find "$G/refs" "$G/objects" ! -type f ! -type d ! -type l 2>/dev/null
  find "$G/refs" -type f -size +8 2>/dev/null
  find "$G/HEAD" "$G/config" "$G/packed-refs" -prune \( ! -type f -o -size +262144 \) 2>/dev/null
)
[ -z "$odd" ] || say GIT_DIR_BROKEN "git cannot read to the end of $(printf '%s' "$odd" | head -c 1000)"
if [ ! -e "$D/meta/lease" ]; then
  # The dot keeps newlines at the end.
  c=$(head -c 100000 "$G/config" 2>/dev/null && printf .)
  [ "$c" = "$1." ] || say CONFIG_CHANGED "$G/config differs from the one that was made"
fi
guard_head
e=$(g rev-parse --git-dir 2>&1) || say NOT_A_REPOSITORY "$e"
case $h in
ref:*)
  # An empty repository has a branch without a commit. Prepare does not need the branch.
  r=${h#ref: }
  if [ -e "$G/$r" ]; then
    g rev-parse -q --verify 'HEAD^{commit}' >/dev/null 2>&1 || say HEAD_BROKEN "$r names no commit"
  fi
  ;;
*) g rev-parse -q --verify 'HEAD^{commit}' >/dev/null 2>&1 || say HEAD_BROKEN "commit $h is missing" ;;
esac
guard_disk "$D" "$2"
[ "$3" = deep ] || exit 0
# A full check: --connectivity-only hashes nothing, and accepts a tip whose parent is in a truncated pack.
e=$(GIT_INDEX_FILE="$M/none" g fsck --full --no-dangling --no-progress --no-reflogs 2>&1)
rc=$?
[ $rc != 0 ] || exit 0
[ $rc -lt 126 ] && [ -n "$e" ] || say OBJECTS_BROKEN "git fsck ended with $rc: $(printf '%s' "$e" | head -c 1000)"
# Complaints about the format of objects (dates and modes in old histories) do not count: a new clone has the same objects. Only lines
# that are certainly of this kind are left out; every other line reports a damaged copy.
e=$(printf '%s\n' "$e" | grep -v -e '^notice:' -e '^\(error\|warning\) in [a-z]* [0-9a-f]\{40,64\}: [A-Za-z]*: ')
[ -z "$e" ] || say OBJECTS_BROKEN "$(printf '%s' "$e" | head -c 1000)"
exit 0
