# Common to all scripts: $1 is the copy's directory, $2 the resource's id. POSIX sh, no bashisms.
set -u
umask 022
D=$1 R=$2
shift 2
T=$D/tree M=$D/meta G=$D/tree/.git

# Whatever the host's environment says to git is not ours: a GIT_DIR or GIT_TRACE left there would lead us astray.
for v in $(env | sed -n 's/^\(GIT_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$v"; done
unset CDPATH
# Commands of an earlier call that outlived it are found by this mark (see stop.sh).
export WHARFINGER_COPY="$R"
export LC_ALL=C HISTFILE=/dev/null
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1
export GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false SSH_ASKPASS_REQUIRE=never
export GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20' GIT_SSH_VARIANT=ssh
export GIT_OPTIONAL_LOCKS=0 GIT_NO_REPLACE_OBJECTS=1 GIT_NO_LAZY_FETCH=1 GIT_DEFAULT_REF_FORMAT=files
export GIT_PAGER=cat GIT_EDITOR=false GIT_ADVICE=0
export GIT_ALLOW_PROTOCOL=https:ssh:file:git GIT_PROTOCOL_FROM_USER=0

# The same as `git -c`, for every git here and below. Attributes and excludes of the user are files of their own, which
# GIT_CONFIG_GLOBAL does not switch off.
n=0
conf() {
  export "GIT_CONFIG_KEY_$n=$1" "GIT_CONFIG_VALUE_$n=$2"
  n=$((n + 1))
  export GIT_CONFIG_COUNT=$n
}
conf core.hooksPath /dev/null
conf core.fsmonitor false
conf core.untrackedCache false
conf core.splitIndex false
conf core.sparseCheckout false
conf core.attributesFile /dev/null
conf core.excludesFile /dev/null
conf core.commitGraph false
conf core.alternateRefsCommand ''
conf credential.helper ''
conf protocol.ext.allow never
conf safe.directory "$T"
conf gc.auto 0
conf maintenance.auto false
conf submodule.recurse false
conf fetch.recurseSubmodules false
conf checkout.defaultRemote ''
conf http.lowSpeedLimit 1000
conf http.lowSpeedTime 60

# Git on this copy and no other: with both named, a missing .git is an error and never some repository further up.
g() { git --git-dir="$G" --work-tree="$T" "$@"; }

# Says what state was found (a stable word, then details) and ends.
say() {
  w=$1
  shift
  printf '%s\t%s\n' "$w" "$*"
  exit 93
}

# The far end of a local transport reads no `-c`: only a file can tell it that another user's repository is meant.
far_end() {
  rm -rf -- "$M/gitconfig"
  printf '[safe]\n\tdirectory = *\n' >"$M/gitconfig" 2>/dev/null && export GIT_CONFIG_GLOBAL="$M/gitconfig"
}

have_git() {
  command -v git >/dev/null 2>&1 || exit 127
}

# The copy is there, is ours, and its directories are directories: a link would lead what follows outside.
guard() {
  [ -d "$D" ] && [ ! -L "$D" ] && [ -f "$M/marker" ] || say DIRECTORY_MISSING "$D is not there or holds no marker"
  m=$(head -c 200 "$M/marker")
  [ "$m" = "$R" ] || say OTHER_RESOURCE "$D belongs to $m"
  [ -e "$T" ] || [ -L "$T" ] || say TREE_MISSING "$T is not there"
  [ -d "$T" ] && [ ! -L "$T" ] || say TREE_REPLACED "$T is no directory"
  [ -e "$G" ] || [ -L "$G" ] || say GIT_DIR_MISSING "$G is not there"
  [ -d "$G" ] && [ ! -L "$G" ] || say GIT_DIR_REPLACED "$G is no directory"
  for d in objects refs; do
    [ -d "$G/$d" ] && [ ! -L "$G/$d" ] || say GIT_DIR_BROKEN "$G/$d is no directory"
  done
  [ -f "$G/config" ] && [ ! -L "$G/config" ] || say CONFIG_CHANGED "$G/config is no file"
}

# HEAD in a form that git reads. What it points at is another question.
guard_head() {
  [ -f "$G/HEAD" ] && [ ! -L "$G/HEAD" ] || say HEAD_BROKEN "$G/HEAD is no file"
  # A sparse file has no end within reach.
  [ -z "$(find "$G/HEAD" -prune -size +8)" ] || say HEAD_BROKEN "$G/HEAD is too long for one name"
  h=$(tr -d '\0' <"$G/HEAD" 2>/dev/null | sed -n 1p)
  case $h in
  'ref: refs/heads/'?*) ;;
  'ref: '* | '' | *[!0-9a-f]*) say HEAD_BROKEN "$G/HEAD does not name a commit or branch" ;;
  *) [ ${#h} = 40 ] || [ ${#h} = 64 ] || say HEAD_BROKEN "$G/HEAD does not name a commit or branch" ;;
  esac
}

guard_disk() {
  free=$(df -Pk "$1" 2>/dev/null | { read -r _; read -r _ _ _ kb _; printf '%s' "${kb:-}"; })
  case $free in '' | *[!0-9]*) return 0 ;; esac
  [ "$((free / 1024))" -ge "$2" ] || say DISK_FULL "$1 has $((free / 1024)) MB free, $2 MB are wanted"
}

# The last mount point inside the copy: it may lie in another, or on it.
last_mount() {
  found=
  # The kernel writes blanks and the like as \040.
  while read -r _ _ _ _ m _; do
    case $m in
    *\\*)
      m=$(printf '%b.' "$(printf '%s' "$m" | sed 's/\\\([0-7]\{3\}\)/\\0\1/g')")
      m=${m%.}
      ;;
    esac
    case $m in "$p" | "$p"/*) found=$m ;; esac
  done </proc/self/mountinfo
  [ -n "$found" ]
}

# What is mounted inside would be emptied by the removal of the copy. What is in use is detached: whoever has it open keeps
# it, and nobody finds it here any more.
guard_mounts() {
  p=$(cd -P -- "$D" 2>/dev/null && pwd -P) || return 0
  while last_mount; do
    umount -- "$found" 2>/dev/null || umount -l -- "$found" 2>/dev/null ||
      say MOUNT_INSIDE "$found is a mount point inside the copy and cannot be unmounted"
  done
}

# Directories that their owner may not write defeat every removal below them. Files need nothing: they are unlinked.
unlock() {
  find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
  return 0
}

remove() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  if [ -d "$1" ] && [ ! -L "$1" ]; then unlock "$1"; fi
  rm -rf -- "$1" 2>/dev/null
  if [ -e "$1" ] || [ -L "$1" ]; then
    # An immutable bit stops even root.
    chattr -R -i -a -- "$1" 2>/dev/null
    e=$(rm -rf -- "$1" 2>&1) || say CANNOT_REMOVE "$1: $e"
  fi
}

# An immutable or append-only bit stops even root, and only root can have set it. All that lies below goes with it.
thaw() {
  [ "$(id -u)" = 0 ] || return 0
  for f; do
    [ -e "$f" ] && [ ! -L "$f" ] || continue
    if lsattr -d -- "$f" 2>/dev/null | grep -q '^[^ ]*[ia][^ ]* ' ||
      lsattr -Ra -- "$f" 2>/dev/null | grep -q '^[^ /]*[ia][^ /]* '; then
      chattr -R -f -i -a -- "$f"
    fi
  done
}

# Our notes are plain files. A pipe in the place of one would hold us up for ever, a directory or a link lead what we write
# elsewhere.
plain_notes() {
  [ -d "$M" ] && [ ! -L "$M" ] || return 0
  if [ "$(id -u)" = 0 ] && lsattr -d -- "$D" 2>/dev/null | grep -q '^[^ ]*[ia][^ ]* '; then chattr -f -i -a -- "$D"; fi
  thaw "$M"
  chmod u+rwx -- "$D" "$M" 2>/dev/null
  for f in "$M"/* "$M"/.[!.]*; do
    [ -e "$f" ] || [ -L "$f" ] || continue
    [ -f "$f" ] && [ ! -L "$f" ] || remove "$f"
  done
}
