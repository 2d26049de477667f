# Sets the environment and the functions that all scripts of this directory share. A library in front of another script's text;
# POSIX sh.
#
# Arguments: the resource's directory; its id; the working copy (the whole tree, a part of it or a submodule); the metadata
#            directory of that working copy; the address of the git-lfs server, or empty if large files stay pointers; the
#            directories of a partial tree, one a line, or empty for the whole tree; the number of commits of history, or
#            empty for all; the file with certificate authorities, or empty. The arguments of the next script follow.
# Sets:      $D $R $T $M $L $W $H $C, the arguments; $G, the .git directory; $N, the directory in which a new clone grows.
# Exits:     with each script: 93 after `say`, with a state, a tab and its details on standard output; 127, a tool is missing.
# shellcheck shell=sh
set -u
umask 022
D=$1 R=$2 T=$3 M=$4 L=$5 W=$6 H=$7 C=$8
shift 8
G=$T/.git
newline='
'
# The directory of a new clone, on the same file system. Other parts do not use it.
N=$M
[ "$M" != "$D/meta" ] || N=$D

# Variables of the host's environment must not reach git: a GIT_DIR or GIT_TRACE would change its work.
case $(export -p) in
*' GIT_'*) for v in $(env | sed -n 's/^\(GIT_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$v"; done ;;
esac
# The effective user, as a number.
me=
while read -r k _ v _; do if [ "$k" = Uid: ]; then me=$v; fi; done 2>/dev/null </proc/$$/status
[ -n "$me" ] || me=$(id -u)
unset CDPATH
# stop.sh finds the processes of earlier calls by this mark.
export WHARFINGER_COPY="$R"
export LC_ALL=C HISTFILE=/dev/null
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1
export GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false SSH_ASKPASS_REQUIRE=never
export GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20' GIT_SSH_VARIANT=ssh
export GIT_OPTIONAL_LOCKS=0 GIT_NO_REPLACE_OBJECTS=1 GIT_NO_LAZY_FETCH=1 GIT_DEFAULT_REF_FORMAT=files
export GIT_PAGER=cat GIT_EDITOR=false GIT_ADVICE=0
export GIT_ALLOW_PROTOCOL=https:ssh:file:git GIT_PROTOCOL_FROM_USER=0

# Configures every git here and below, as `git -c` does. The user's attributes and excludes are other files, which
# GIT_CONFIG_GLOBAL does not disable.
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

# These settings of git-lfs precede those of a tree's .lfsconfig.
if [ -n "$L" ]; then
  conf lfs.url "$L"
  # All copies on the host share the store. lfs.sh and the proof hash its files.
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

# Runs git on this copy alone. A missing .git is an error; git does not search the directories above.
g() { git --git-dir="$G" --work-tree="$T" "$@"; }

# Filters lines that end with a tab and a name, as git quotes it. Passes those of files "in" the partial tree, or "out" of it.
# In are files in the directories of $W, and files beside and above them.
cone() {
  [ -n "$W" ] || {
    [ "$1" = out ] && cat >/dev/null || cat
    return 0
  }
  # In a bracket of a regular expression, Busybox takes a backslash before a slash for a character of its own.
  wanted=$W side=$1 awk '
    function up(d) { return match(d, "/[^/]*$") ? substr(d, 1, RSTART - 1) : "" }
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

# Whether the file is a list of commits at which the history ends, in the format of .git/shallow.
fit_shallow() {
  [ -f "$1" ] && [ ! -L "$1" ] && [ -z "$(find "$1" -prune -size +8192)" ] && ! grep -qv '^[0-9a-f]\{40,64\}$' "$1"
}

# Sets $room to what the file system of $1 lacks, or fails: it takes no more files, or hardly a byte.
no_room() {
  room=$(df -Pi -- "$1" 2>/dev/null | awk 'NR == 2 && $2 > 0 && $4 < 16 { print $4 " free inodes"; exit }')
  [ -n "$room" ] || room=$(df -Pk -- "$1" 2>/dev/null | awk 'NR == 2 && $4 < 64 { print $4 " free KiB"; exit }')
  [ -n "$room" ]
}

# Reports a state (a stable code, then details) and exits. A failure on a full file system is no state of the copy.
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

# Allows repositories of other users on the serving end of a local transport, which reads a file but no `-c`.
far_end() {
  drop "$M/gitconfig"
  printf '[safe]\n\tdirectory = *\n' >"$M/gitconfig" 2>/dev/null && export GIT_CONFIG_GLOBAL="$M/gitconfig"
}

# Calls the function $1 when the script exits, except by SIGKILL. The last function is called first.
undo=
at_end() {
  undo="$1 $undo"
  trap 'for f in $undo; do "$f"; done' EXIT
  trap 'exit 143' HUP INT TERM
}

have_git() {
  command -v git >/dev/null 2>&1 || exit 127
}

# Checks that the directory is that of the resource.
guard_resource() {
  [ -d "$D" ] && [ ! -L "$D" ] && [ -f "$D/meta/marker" ] || say DIRECTORY_MISSING "$D is not there or holds no marker"
  m=$(head -c 200 "$D/meta/marker")
  [ "$m" = "$R" ] || say OTHER_RESOURCE "$D belongs to $m"
}

# Removes the files and directories that are there. Without any it starts no process.
drop() {
  for f; do
    shift
    if [ -e "$f" ] || [ -L "$f" ]; then set -- "$@" "$f"; fi
  done
  [ $# = 0 ] || rm -rf -- "$@"
}

# Makes the metadata directory of a part, if it is missing.
make_notes() {
  [ "$M" != "$D/meta" ] || return 0
  if [ -L "$D/parts" ]; then rm -f -- "$D/parts"; fi
  if [ -L "$M" ] || { [ -e "$M" ] && [ ! -d "$M" ]; }; then remove "$M"; fi
  e=$(mkdir -p -- "$M" 2>&1) || say CANNOT_CREATE "$e"
}

# Checks that no directory above $1 is a link. $1 itself may be missing.
guard_way() {
  up=${1%/*}
  # A missing directory is another state than a link.
  [ -d "$up" ] || say TREE_MISSING "$up is not there"
  [ "$(cd -P -- "$up" && pwd -P)" = "$(cd -P -- "$D" && pwd -P)${up#"$D"}" ] || say TREE_REPLACED "$up leads elsewhere"
}

# Checks that the copy is that of the resource, and that its directories are no links: a link would lead the next steps outside.
guard() {
  guard_resource
  make_notes
  guard_way "$T"
  [ -e "$T" ] || [ -L "$T" ] || say TREE_MISSING "$T is not there"
  [ -d "$T" ] && [ ! -L "$T" ] || say TREE_REPLACED "$T is not a directory"
  [ -e "$G" ] || [ -L "$G" ] || say GIT_DIR_MISSING "$G is not there"
  [ -d "$G" ] && [ ! -L "$G" ] || say GIT_DIR_REPLACED "$G is not a directory"
  for d in objects refs; do
    [ -d "$G/$d" ] && [ ! -L "$G/$d" ] || say GIT_DIR_BROKEN "$G/$d is not a directory"
  done
  [ -f "$G/config" ] && [ ! -L "$G/config" ] || say CONFIG_CHANGED "$G/config is not a file"
}

# Checks that HEAD has a format that git reads. Its target is not checked.
guard_head() {
  [ -f "$G/HEAD" ] && [ ! -L "$G/HEAD" ] || say HEAD_BROKEN "$G/HEAD is not a file"
  # A sparse file could be too long to read.
  [ -z "$(find "$G/HEAD" -prune -size +8)" ] || say HEAD_BROKEN "$G/HEAD is too long for one name"
  h=$(tr -d '\0' <"$G/HEAD" 2>/dev/null)
  h=${h%%"$newline"*}
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
  [ "$((free / 1024))" -ge "$2" ] || say DISK_FULL "$1 has $((free / 1024)) MB free and needs $2 MB"
}

# Finds the last mount point inside the copy. It may be inside another, or on top of it.
last_mount() {
  found=
  # The kernel writes a blank as \040 (proc_pid_mountinfo(5)).
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

# Unmounts file systems inside the copy: the removal of the copy would empty them. One in use is detached; processes with open files
# keep them.
guard_mounts() {
  p=$(cd -P -- "$D" 2>/dev/null && pwd -P) || return 0
  while last_mount; do
    umount -- "$found" 2>/dev/null || umount -l -- "$found" 2>/dev/null ||
      say MOUNT_INSIDE "$found is a mount point inside the copy and cannot be unmounted"
  done
}

# Makes directories writable, so that the files below can be removed. Files need no mode to be unlinked.
unlock() {
  find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
  return 0
}

# Renames a directory: it is complete in one of the two places at every time.
move() {
  chmod u+rwx -- "$1" 2>/dev/null
  mv -- "$1" "$2" 2>/dev/null && return 0
  chattr -i -a -- "$1" 2>/dev/null
  e=$(mv -- "$1" "$2" 2>&1) || say CANNOT_REMOVE "$e"
}

# Removes a file or link in the place of a directory.
only_dir() {
  if [ -L "$1" ] || { [ -e "$1" ] && [ ! -d "$1" ]; }; then remove "$1"; fi
}

remove() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  if [ -d "$1" ] && [ ! -L "$1" ]; then unlock "$1"; fi
  rm -rf -- "$1" 2>/dev/null
  if [ -e "$1" ] || [ -L "$1" ]; then
    # The immutable attribute stops root, too (chattr(1)).
    chattr -R -i -a -- "$1" 2>/dev/null
    e=$(rm -rf -- "$1" 2>&1) || say CANNOT_REMOVE "$1: $e"
  fi
}

# Clears the immutable and append-only attributes of the files, and of all below. They stop root, too, and only root can set them.
thaw() {
  [ "$me" = 0 ] || return 0
  for f; do
    [ -e "$f" ] && [ ! -L "$f" ] || continue
    if {
      lsattr -d -- "$f"
      lsattr -Ra -- "$f"
    } 2>/dev/null | grep -q '^[^ /]*[ia][^ /]* '; then
      chattr -R -f -i -a -- "$f"
    fi
  done
}

# Removes everything but plain files from the metadata. Reading a pipe would never end; a directory or a link would lead writes
# elsewhere.
plain_notes() {
  [ -d "$M" ] && [ ! -L "$M" ] || return 0
  if [ "$me" = 0 ] && {
    lsattr -d -- "$D" "$M"
    lsattr -Ra -- "$M"
  } 2>/dev/null | grep -q '^[^ /]*[ia][^ /]* '; then
    chattr -f -i -a -- "$D"
    thaw "$M"
  fi
  for f in "$D" "$M"; do
    if [ ! -r "$f" ] || [ ! -w "$f" ] || [ ! -x "$f" ]; then chmod u+rwx -- "$f" 2>/dev/null; fi
  done
  for f in "$M"/* "$M"/.[!.]*; do
    [ -e "$f" ] || [ -L "$f" ] || continue
    # Parts and submodules are here while they are out of the tree.
    case ${f##*/} in sub | parked) if [ -d "$f" ] && [ ! -L "$f" ]; then continue; fi ;; esac
    [ -f "$f" ] && [ ! -L "$f" ] || remove "$f"
  done
}
