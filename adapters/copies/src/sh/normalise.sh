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
# Removes all arguments. One process does it where nothing is in its way.
remove_all() {
  for f; do
    shift
    if [ -e "$f" ] || [ -L "$f" ]; then set -- "$@" "$f"; fi
  done
  [ $# != 0 ] || return 0
  rm -rf -- "$@" 2>/dev/null
  for f; do remove "$f"; done
}
# Says whether this file of .git stays.
stays() {
  case ${1##*/} in
  HEAD | config | objects | refs) return 0 ;;
  index) [ "$2" = index ] && [ -f "$1" ] && [ ! -L "$1" ] ;;
  shallow) fit_shallow "$1" ;;
  packed-refs) [ ! -L "$1" ] && [ -f "$1" ] ;;
  *) return 1 ;;
  esac
}
# A killed merge or landing may have left the first two.
remove_rest() {
  index=$1
  set -- "$M/scratch" "$D/meta/landing" "$D/meta/lease"
  for f in "$G"/* "$G"/.[!.]* "$G"/..?*; do
    [ -e "$f" ] || [ -L "$f" ] || continue
    stays "$f" "$index" || set -- "$@" "$f"
  done
  remove_all "$@"
}
# So that all below can be removed. Files need no mode for it.
unlock "$G"
remove_rest "$4"
mkdir -p "$G/info" "$G/hooks" || say CANNOT_REMOVE "cannot write below $G"
guard_disk "$D" "$3"
e=$({ printf '%s' "$1" >"$G/config.new" && mv -f -- "$G/config.new" "$G/config"; } 2>&1) || say CANNOT_REMOVE "$e"

# Alternates, commit graphs, bitmaps and promisor marks can be forged; none is needed.
remove "$G/objects/info"
# Leftovers of a killed git, and files with a second name, by which another process could write them, are not needed either. Git
# reads a ref to its end, so pipes and long files go. What stays and belongs to another user is printed.
alien=$(cd -- "$G" && find . \( -path './objects/*' ! -type d \( ! -type f -o -name 'tmp_*' -o -links +1 \) \
  -o -path './refs/*' \( ! -type f ! -type d -o -type f -size +8 \) -o -path ./packed-refs -size +262144 \) \
  -exec rm -f -- {} + -o ! -user "$me" -print)
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
# shellcheck disable=SC3067 # dash, bash, ksh and busybox have -O.
if [ -n "$alien" ] || [ ! -O "$T" ]; then
  # Git refuses repositories of another user (safe.directory, git-config(1)).
  chown -Rh "$(id -u):$(id -g)" "$T" 2>/dev/null ||
    say GIT_DIR_BROKEN "$T or ${alien%%"$newline"*} in its .git belongs to another user"
fi

# Keeps the packed refs that the sed program $1 prints. The header line is removed: it promises an order and peeled tags, which a
# holder may have changed. Other lines would stop every git command.
refs() {
  [ -f "$G/packed-refs" ] || return 0
  sed -n "$1" "$G/packed-refs" >"$G/packed-refs.new" && mv -f -- "$G/packed-refs.new" "$G/packed-refs"
}
# Whether each packed ref is a fetched one already.
if [ -f "$G/packed-refs" ] && grep -qv '^[0-9a-f]\{40,64\} refs/remotes/origin/[^ ]*$' "$G/packed-refs"; then
  refs '\|^[0-9a-f]\{40,64\} refs/[^ ]*$|p'
  packed=mixed
else
  packed=fetched
fi

if [ "$2" = mend ]; then
  (guard_head) >/dev/null || {
    remove "$G/HEAD"
    printf 'ref: refs/heads/none\n' >"$G/HEAD"
  }
fi
guard_head
old=$(g rev-parse -q --verify 'HEAD^{commit}' 2>/dev/null) || {
  old=
  e=$(g rev-parse --git-dir 2>&1) || say NOT_A_REPOSITORY "$e"
}
case $h in
ref:*) ;;
*)
  if [ -z "$old" ]; then
    [ "$2" = mend ] || say HEAD_BROKEN "commit $h is missing"
  fi
  ;;
esac

# Removes branches, tags and notes of former holders. Fetched refs stay: the next fetch has less to load.
remove_refs() {
  set --
  for f in "$G"/refs/* "$G"/refs/.[!.]*; do
    [ "${f##*/}" = remotes ] && [ -d "$f" ] && [ ! -L "$f" ] || set -- "$@" "$f"
  done
  for f in "$G"/refs/remotes/* "$G"/refs/remotes/.[!.]*; do
    [ "${f##*/}" = origin ] && [ -d "$f" ] && [ ! -L "$f" ] || set -- "$@" "$f"
  done
  remove_all "$@"
}
remove_refs
mkdir -p "$G/refs/heads" "$G/refs/tags"
if [ -d "$G/refs/remotes/origin" ]; then
  # Names are arguments: a name may have newlines, and a part of it may be the path of another file.
  find "$G/refs/remotes/origin" \( -type l -o -name '*.lock' \) -exec rm -rf -- {} + -o -type f -exec sh -c '
    for f; do
      line=
      IFS= read -r line <"$f"
      case $line in ref:*) rm -f -- "$f" ;; esac
    done' sh {} + 2>/dev/null
fi
[ "$packed" = fetched ] || refs '\|^[0-9a-f]\{40,64\} refs/remotes/origin/[^ ]*$|p'
{ printf '%s\n' "${old:-ref: refs/heads/none}" >"$G/HEAD.new" && mv -f -- "$G/HEAD.new" "$G/HEAD"; } ||
  say CANNOT_REMOVE "cannot write $G/HEAD"
shift 4
normal=yes
