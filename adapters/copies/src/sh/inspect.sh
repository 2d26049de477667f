# Compares the copy with the one that was made, and reports the first difference. A holder may configure its copy while it has
# it, so the configuration counts only without a lease.
#
# Arguments: the configuration of the copy; MB that must be free; "deep" to hash all objects, or "quick".
# Exits:     0; 93, with the state found; 127 (prelude.sh).
guard
have_git
if [ -e "$M/suspect" ] || [ -L "$M/suspect" ]; then
  [ -f "$M/suspect" ] || say PROOF_FAILED "$M/suspect is no file"
  say PROOF_FAILED "$(head -c 1000 "$M/suspect")"
fi
if [ -e "$G/shallow" ] || [ -L "$G/shallow" ]; then
  [ -n "$H" ] || say SHALLOW "$G/shallow cuts the history"
  fit_shallow "$G/shallow" || say SHALLOW "$G/shallow is no list of commits"
fi
[ ! -e "$G/commondir" ] || say GIT_DIR_BROKEN "$G/commondir leads to another repository"
# Git waits for what comes out of a pipe, and reads a ref to its end.
odd=$(
  find "$G/refs" "$G/objects" ! -type f ! -type d ! -type l 2>/dev/null
  find "$G/refs" -type f -size +8 2>/dev/null
  find "$G/HEAD" "$G/config" "$G/packed-refs" -prune \( ! -type f -o -size +262144 \) 2>/dev/null
)
[ -z "$odd" ] || say GIT_DIR_BROKEN "what git would not read to an end: $(printf '%s' "$odd" | head -c 1000)"
if [ ! -e "$D/meta/lease" ]; then
  # The dot keeps the trailing newlines.
  c=$(head -c 100000 "$G/config" 2>/dev/null && printf .)
  [ "$c" = "$1." ] || say CONFIG_CHANGED "$G/config is not as it was made"
fi
guard_head
e=$(g rev-parse --git-dir 2>&1) || say NOT_A_REPOSITORY "$e"
case $h in
ref:*)
  # A branch without a commit is what an empty repository has; prepare does not need it.
  r=${h#ref: }
  if [ -e "$G/$r" ]; then
    g rev-parse -q --verify 'HEAD^{commit}' >/dev/null 2>&1 || say HEAD_BROKEN "$r names no commit"
  fi
  ;;
*) g rev-parse -q --verify 'HEAD^{commit}' >/dev/null 2>&1 || say HEAD_BROKEN "commit $h is missing" ;;
esac
guard_disk "$D" "$2"
[ "$3" = deep ] || exit 0
# All of it: with --connectivity-only it takes a tip whose parent lies in a truncated pack, and hashes nothing.
e=$(GIT_INDEX_FILE="$M/none" g fsck --full --no-dangling --no-progress --no-reflogs 2>&1)
rc=$?
[ $rc != 0 ] || exit 0
[ $rc -lt 126 ] && [ -n "$e" ] || say OBJECTS_BROKEN "git fsck ended with $rc: $(printf '%s' "$e" | head -c 1000)"
# What it has to say of whole objects (old histories have odd dates and modes) is no reason to clone anew: that brings the same
# again. Only lines that are certainly of that kind are left out; whatever else it says, it says of a broken copy.
e=$(printf '%s\n' "$e" | grep -v -e '^notice:' -e '^\(error\|warning\) in [a-z]* [0-9a-f]\{40,64\}: [A-Za-z]*: ')
[ -z "$e" ] || say OBJECTS_BROKEN "$(printf '%s' "$e" | head -c 1000)"
exit 0
