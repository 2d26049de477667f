# Is this the copy that we made, and fit for use? $1: pinned configuration, $2: MB that must be free, $3: "deep" to walk
# all objects. A holder may configure its copy while it has it, so the configuration counts only without a lease.
guard
have_git
[ ! -e "$M/suspect" ] || say PROOF_FAILED "$(head -c 1000 "$M/suspect")"
[ ! -e "$G/shallow" ] || say SHALLOW "$G/shallow cuts the history"
[ ! -e "$G/commondir" ] || say GIT_DIR_BROKEN "$G/commondir leads to another repository"
if [ ! -e "$D/meta/lease" ]; then
  # The dot keeps the trailing newlines.
  c=$(cat "$G/config" 2>/dev/null && printf .)
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
e=$(GIT_INDEX_FILE="$M/none" g fsck --connectivity-only --no-dangling --no-progress --no-reflogs 2>&1) ||
  say OBJECTS_BROKEN "$(printf '%s' "$e" | grep -v '^notice:' | head -c 1000)"
