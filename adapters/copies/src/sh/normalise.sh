# Brings .git to a known state before git trusts it: removes all files that are not needed. HEAD is detached at the former commit then,
# or names a branch without a commit. Other scripts may follow.
#
# Arguments: the configuration of the copy; "strict", or "mend" to replace a broken HEAD and configuration; MB that must be free;
#            "index" to keep the index, or empty. It shifts them away.
# Sets:      $normal, yes; $digits, the length of an object's name.
# Exits:     0, if no script follows; 93, 127 (prelude.sh).
guard_mounts
[ "$M" = "$D/meta" ] || plain_notes
thaw "$G"
if [ "$2" = mend ] && [ -d "$G" ] && [ ! -L "$G" ]; then
  # An empty file passes the guards; it is written anew below.
  { [ -f "$G/config" ] && [ ! -L "$G/config" ]; } || {
    remove "$G/config"
    : >"$G/config"
  }
fi
guard
have_git
[ "$2" = mend ] || [ ! -e "$M/suspect" ] || say PROOF_FAILED "$(head -c 1000 "$M/suspect")"
[ -n "$H" ] || [ ! -e "$G/shallow" ] || say SHALLOW "$G/shallow cuts off the history"
[ ! -e "$G/commondir" ] || say GIT_DIR_BROKEN "$G/commondir leads to another repository"
rm -f -- "$D/meta/lease"
# A killed merge or landing may have left these.
remove "$M/scratch"
remove "$D/meta/landing"
unlock "$G"
for f in "$G"/* "$G"/.[!.]* "$G"/..?*; do
  [ -e "$f" ] || [ -L "$f" ] || continue
  case ${f##*/} in
  HEAD | config | objects | refs) ;;
  index) [ "$4" = index ] && [ -f "$f" ] && [ ! -L "$f" ] || remove "$f" ;;
  shallow) fit_shallow "$f" || remove "$f" ;;
  packed-refs) if [ -L "$f" ] || [ ! -f "$f" ]; then remove "$f"; fi ;;
  *) remove "$f" ;;
  esac
done
mkdir -p "$G/info" "$G/hooks" || say CANNOT_REMOVE "cannot write below $G"
guard_disk "$D" "$3"
e=$({ printf '%s' "$1" >"$G/config.new" && mv -f -- "$G/config.new" "$G/config"; } 2>&1) || say CANNOT_REMOVE "$e"

# Alternates, commit graphs, bitmaps and promisor marks can be forged; none is needed.
remove "$G/objects/info"
# Leftovers of a killed git, and files with a second name, by which another process could write them, are not needed either.
find "$G/objects" \( ! -type f ! -type d -o -name 'tmp_*' \) -exec rm -f -- {} +
find "$G/objects" -type f -links +1 -exec rm -f -- {} +
case $1 in *'objectformat = sha256'*) digits=64 ;; *) digits=40 ;; esac
if [ -d "$G/objects/pack" ]; then
  for f in "$G/objects/pack"/* "$G/objects/pack"/.[!.]*; do
    p=${f##*/}
    case $p in pack-*.pack) p=${p%.pack} ;; pack-*.idx) p=${p%.idx} ;; *) p= ;; esac
    # A pack of another object format would be an error of each command.
    case ${p#pack-} in
    '' | *[!0-9a-f]*) ;;
    *) [ ${#p} != $((digits + 5)) ] || continue ;;
    esac
    if [ -e "$f" ] || [ -L "$f" ]; then remove "$f"; fi
  done
fi
# Git reads a ref to its end, so pipes and long files go.
find "$G/refs" \( ! -type f ! -type d -o -type f -size +8 \) -exec rm -f -- {} +
find "$G/packed-refs" -prune -size +262144 -exec rm -f -- {} + 2>/dev/null
alien=$(
  find "$T" "$G" -prune ! -user "$(id -u)"
  find "$G" ! -user "$(id -u)" | sed -n 1p
)
if [ -n "$alien" ]; then
  # Git refuses repositories of another user (safe.directory, git-config(1)).
  chown -Rh "$(id -u):$(id -g)" "$T" 2>/dev/null || say GIT_DIR_BROKEN "$alien belongs to another user"
fi

# Keeps the packed refs that the sed program $1 prints. The header line is removed: it promises an order and peeled tags, which a
# holder may have changed. Other lines would stop every git command.
refs() {
  [ -f "$G/packed-refs" ] || return 0
  sed -n "$1" "$G/packed-refs" >"$G/packed-refs.new" && mv -f -- "$G/packed-refs.new" "$G/packed-refs"
}
refs '\|^[0-9a-f]\{40,64\} refs/[^ ]*$|p'

if [ "$2" = mend ]; then
  (guard_head) >/dev/null || {
    remove "$G/HEAD"
    printf 'ref: refs/heads/none\n' >"$G/HEAD"
  }
fi
guard_head
e=$(g rev-parse --git-dir 2>&1) || say NOT_A_REPOSITORY "$e"
old=$(g rev-parse -q --verify 'HEAD^{commit}' 2>/dev/null) || old=
case $h in
ref:*) ;;
*)
  if [ -z "$old" ]; then
    [ "$2" = mend ] || say HEAD_BROKEN "commit $h is missing"
  fi
  ;;
esac

# Removes branches, tags and notes of former holders. Fetched refs stay: the next fetch has less to load.
for f in "$G"/refs/* "$G"/refs/.[!.]*; do
  [ "${f##*/}" = remotes ] && [ -d "$f" ] && [ ! -L "$f" ] || remove "$f"
done
for f in "$G"/refs/remotes/* "$G"/refs/remotes/.[!.]*; do
  [ "${f##*/}" = origin ] && [ -d "$f" ] && [ ! -L "$f" ] || remove "$f"
done
mkdir -p "$G/refs/heads" "$G/refs/tags"
if [ -d "$G/refs/remotes/origin" ]; then
  find "$G/refs/remotes/origin" \( -type l -o -name '*.lock' \) -exec rm -rf -- {} +
  # Names are arguments: a name may have newlines, and a part of it may be the path of another file.
  find "$G/refs/remotes/origin" -type f -exec sh -c '
    for f; do
      line=
      IFS= read -r line <"$f"
      case $line in ref:*) rm -f -- "$f" ;; esac
    done' sh {} + 2>/dev/null
fi
refs '\|^[0-9a-f]\{40,64\} refs/remotes/origin/[^ ]*$|p'
{ printf '%s\n' "${old:-ref: refs/heads/none}" >"$G/HEAD.new" && mv -f -- "$G/HEAD.new" "$G/HEAD"; } ||
  say CANNOT_REMOVE "cannot write $G/HEAD"
shift 4
normal=yes
