# Sets what all scripts of this directory share. A library in front of another script's text; POSIX sh.
#
# Arguments: the resource's directory; its id; the working copy (the whole tree, a part of it or a submodule); the directory
#            with the notes of that working copy; the address of git-lfs, or empty if large files stay pointers; the
#            directories that the tree has, one a line, or empty for all; the number of commits of history, or empty for all;
#            the file with the certificates of authorities, or empty. The arguments of the next script follow.
# Sets:      $D $R $T $M $L $W $H $C, the arguments; $G, the .git directory; $N, the directory in which a new clone grows.
# Exits:     with each script: 93 after `say`, with a state, a tab and its details on standard output; 127, a tool is missing.
# shellcheck shell=sh
set -u
umask 022
D=$1 R=$2 T=$3 M=$4 L=$5 W=$6 H=$7 C=$8
shift 8
G=$T/.git
# Where a new clone grows: on the same file system, and nobody else's.
N=$M
[ "$M" != "$D/meta" ] || N=$D

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
confs=0
conf() {
  export "GIT_CONFIG_KEY_$confs=$1" "GIT_CONFIG_VALUE_$confs=$2"
  confs=$((confs + 1))
  export GIT_CONFIG_COUNT=$confs
}
conf core.hooksPath /dev/null
conf core.fsmonitor false
conf core.untrackedCache false
conf core.splitIndex false
if [ -n "$W" ]; then sparse=true; else sparse=false; fi
conf core.sparseCheckout $sparse
conf core.sparseCheckoutCone $sparse
conf index.sparse false
conf core.quotePath false
conf core.ignoreStat false
conf core.trustctime true
conf core.checkStat default
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
[ -z "$C" ] || conf http.sslCAInfo "$C"

# The same is said of git-lfs, and before all that a tree's .lfsconfig can say: that one is read, and loses.
if [ -n "$L" ]; then
  conf lfs.url "$L"
  # Shared by all copies on the host. What is in it is believed by nobody: see lfs.sh.
  conf lfs.storage "${D%/*}/mirrors/lfs"
  conf lfs.fetchinclude ''
  conf lfs.fetchexclude ''
  conf lfs.skipdownloaderrors false
  conf lfs.setlockablereadonly false
  conf filter.lfs.process 'git-lfs filter-process'
  conf filter.lfs.smudge 'git-lfs smudge -- %f'
  conf filter.lfs.clean 'git-lfs clean -- %f'
  conf filter.lfs.required true
fi

# Git on this copy and no other: with both named, a missing .git is an error and never some repository further up.
g() { git --git-dir="$G" --work-tree="$T" "$@"; }

# Of lines that end with a tab and a name, as git quotes it, those that are "in" what the pool has of the tree, or "out" of it: in
# are files in the directories of $W, and beside and above them.
cone() {
  [ -n "$W" ] || {
    [ "$1" = out ] && cat >/dev/null || cat
    return 0
  }
  wanted=$W side=$1 awk '
    function up(d) { return match(d, /\/[^\/]*$/) ? substr(d, 1, RSTART - 1) : "" }
    BEGIN {
      n = split(ENVIRON["wanted"], list, "\n")
      above[""] = 1
      for (i = 1; i <= n; i++) {
        below[list[i]] = 1
        for (d = up(list[i]); d != ""; d = up(d)) above[d] = 1
      }
    }
    {
      name = $0
      sub(/^[^\t]*\t"?/, "", name)
      dir = up(name)
      if (!(dir in known)) {
        known[dir] = dir in above
        for (d = dir; d != "" && !known[dir]; d = up(d)) known[dir] = d in below
      }
      if (known[dir] == (ENVIRON["side"] == "in")) print
    }'
}

# A list of commits where history is cut off, in a form that git reads.
fit_shallow() {
  [ -f "$1" ] && [ ! -L "$1" ] && [ -z "$(find "$1" -prune -size +8192)" ] && ! grep -qv '^[0-9a-f]\{40,64\}$' "$1"
}

# Sets $room to what the file system of $1 lacks, or fails: it takes no more files, or hardly a byte.
no_room() {
  room=$(df -Pi -- "$1" 2>/dev/null | awk 'NR == 2 && $2 > 0 && $4 < 16 { print $4 " free inodes"; exit }')
  [ -n "$room" ] || room=$(df -Pk -- "$1" 2>/dev/null | awk 'NR == 2 && $4 < 64 { print $4 " free KiB"; exit }')
  [ -n "$room" ]
}

# Says what state was found (a stable word, then details) and ends. What fails on a full file system says nothing of the copy.
say() {
  w=$1
  shift
  case $w in
  CANNOT_CREATE | CHECKOUT_FAILED | GIT_DIR_BROKEN | HEAD_BROKEN | LANDING_FAILED | MERGE_FAILED | NOT_A_REPOSITORY | OBJECTS_BROKEN | PROOF_FAILED)
    if no_room "$D"; then
      set -- "the file system of $D has $room, so that this says nothing of the copy: $w: $*"
      w=DISK_FULL
    fi
    ;;
  esac
  printf '%s\t%s\n' "$w" "$*"
  exit 93
}

# The far end of a local transport reads no `-c`: only a file can tell it that another user's repository is meant.
far_end() {
  rm -rf -- "$M/gitconfig"
  printf '[safe]\n\tdirectory = *\n' >"$M/gitconfig" 2>/dev/null && export GIT_CONFIG_GLOBAL="$M/gitconfig"
}

# Calls the function $1 when the script ends, in whatever way but a kill; the last one given is called first.
undo=
at_end() {
  undo="$1 $undo"
  trap 'for f in $undo; do "$f"; done' EXIT
  trap 'exit 143' HUP INT TERM
}

have_git() {
  command -v git >/dev/null 2>&1 || exit 127
}

# The resource is there and is ours.
guard_resource() {
  [ -d "$D" ] && [ ! -L "$D" ] && [ -f "$D/meta/marker" ] || say DIRECTORY_MISSING "$D is not there or holds no marker"
  m=$(head -c 200 "$D/meta/marker")
  [ "$m" = "$R" ] || say OTHER_RESOURCE "$D belongs to $m"
}

# What we note of a part is made again when it is gone.
make_notes() {
  [ "$M" != "$D/meta" ] || return 0
  if [ -L "$D/parts" ]; then rm -f -- "$D/parts"; fi
  if [ -L "$M" ] || { [ -e "$M" ] && [ ! -d "$M" ]; }; then remove "$M"; fi
  e=$(mkdir -p -- "$M" 2>&1) || say CANNOT_CREATE "$e"
}

# No link on the way down to $1, which may be missing itself.
guard_way() {
  up=${1%/*}
  # In two steps: what is not there is no link.
  [ -d "$up" ] || say TREE_MISSING "$up is not there"
  [ "$(cd -P -- "$up" && pwd -P)" = "$(cd -P -- "$D" && pwd -P)${up#"$D"}" ] || say TREE_REPLACED "$up leads elsewhere"
}

# The copy is there, is ours, and its directories are directories: a link would lead what follows outside.
guard() {
  guard_resource
  make_notes
  guard_way "$T"
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
  free=$(df -Pk "$1" 2>/dev/null | {
    read -r _
    read -r _ _ _ kb _
    printf '%s' "${kb:-}"
  })
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

# A directory, by a rename: it is always in one of the two places, whole.
move() {
  chmod u+rwx -- "$1" 2>/dev/null
  mv -- "$1" "$2" 2>/dev/null && return 0
  chattr -i -a -- "$1" 2>/dev/null
  e=$(mv -- "$1" "$2" 2>&1) || say CANNOT_REMOVE "$e"
}

# Makes way for a directory of ours that may be there: what is none of that name goes.
only_dir() {
  if [ -L "$1" ] || { [ -e "$1" ] && [ ! -d "$1" ]; }; then remove "$1"; fi
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
    # Where parts and submodules lie while they are out of the tree.
    case ${f##*/} in sub | parked) if [ -d "$f" ] && [ ! -L "$f" ]; then continue; fi ;; esac
    [ -f "$f" ] && [ ! -L "$f" ] || remove "$f"
  done
}
