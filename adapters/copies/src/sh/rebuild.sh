# Brings the tree to a commit. prove.sh follows.
#
# The index is either the known one, byte for byte, or made anew without time stamps, so that every file is hashed. Git computes
# its listing of trees from the entries, and never takes it from the object store. See docs/adr/0010.
#
# Follows:   convert.sh
# Arguments: the commit, or "HEAD" for the one that the tree is at; "clean" or "keep", for what git does not track; "gentle", or
#            "wipe" to begin with an empty directory; the remote's default branch, or empty; what is known of the index (what
#            prove.sh printed as "trust"), or empty; "trust" to have that printed again, or empty; the note to leave in meta/lease,
#            or empty; then patterns of what "clean" keeps.
# Exits:     0, if "HEAD" names no commit; 93, 127 (prelude.sh).
have_git
cd -P -- "$T" || say TREE_MISSING "$T cannot be entered"
want=$1 policy=$2 mode=$3 default=$4 trust=$5 save=$6 note=$7
shift 7
n=$#
while [ "$n" -gt 0 ]; do
  set -- "$@" -e "$1"
  shift
  n=$((n - 1))
done
tab=$(printf '\t')
if [ "$want" = HEAD ]; then
  want=$(g rev-parse -q --verify 'HEAD^{commit}') || want=
  # Not where a holder went: what only its own commits have goes with the lease.
  if [ -f "$M/handed" ] && [ ! -L "$M/handed" ]; then
    h=$(head -c 64 "$M/handed" | tr -d '\n')
    case $h in '' | *[!0-9a-f]*) ;; *) ! g cat-file commit "$h" >/dev/null 2>&1 || want=$h ;; esac
  fi
  [ -n "$want" ] || exit 0
fi
fail() {
  # A caller that asks only whether the index can be trusted has its answer.
  [ "$save" != trust ] || exit 0
  say PROOF_FAILED "$*"
}
rm -rf -- "$M/commit" "$M/changes" "$M/hashes" "$M/zero" "$M/dirty" "$M/clock" "$G/index.lock"

# Git does not hash what it reads, so a forged object passes for a true one.
g cat-file commit "$want" >"$M/commit" 2>/dev/null
c=$(g hash-object -t commit --literally --stdin <"$M/commit" 2>/dev/null)
[ "$c" = "$want" ] || fail "the stored commit $want is forged or missing"
line=
IFS= read -r line <"$M/commit" || :
tree=${line#tree }
case $line in 'tree '*[!0-9a-f]*) tree= ;; 'tree '*) ;; *) tree= ;; esac
[ -n "$tree" ] || fail "commit $want names no tree"

cone=-
if [ -n "$W" ]; then
  # As git has it in cone mode.
  e=$({ {
    printf '/*\n!/*/\n'
    printf '%s\n' "$W" | awk '
      { n = split($0, part, "/"); d = ""; list[NR] = $0
        for (i = 1; i < n; i++) { d = d "/" part[i]; if (!seen[d]++) printf "%s/\n!%s/*/\n", d, d } }
      END { for (i = 1; i <= NR; i++) printf "/%s/\n", list[i] }'
  } >"$G/info/sparse.new" && mv -f -- "$G/info/sparse.new" "$G/info/sparse-checkout"; } 2>&1) || say CHECKOUT_FAILED "$e"
  cone=$(g hash-object --stdin --no-filters <"$G/info/sparse-checkout")
fi

boot=
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || :
# By the clock of the file system, which may be another machine's.
: >"$M/clock"
started=
[ "$save" != trust ] || started=$(stat -c %Z "$M/clock" 2>/dev/null)
was='' at='' links='' known=''
if [ -n "$trust" ] && [ "$mode" = gentle ] && [ -f "$G/index" ] && [ ! -L "$G/index" ]; then
  read -r digest was at links b c <<X
$trust
X
  d=$(sha256sum <"$G/index" 2>/dev/null)
  if [ "${d%% *}" = "$digest" ] && [ "$b" = "$boot" ] && [ "$c" = "$cone" ]; then known=yes; fi
fi

# Unlocks all directories, and finds what git does not see at all: pipes, sockets, devices, and repositories, which go to another
# list.
rm -rf -- "$M/hidden" "$M/tracked"
# shellcheck disable=SC2016
odd=$(find . -path ./.git -prune -o -name .git -prune -exec sh -c 'printf "%s\0" "$@" >&3' sh {} + -o -type d \( -perm -700 -o -exec chmod u+rwx {} \; -o -print \) \
  -o -type f -o -type l -o -print 2>/dev/null 3>"$M/hidden" | {
  IFS= read -r line || :
  printf '%s' "$line"
  # So that find unlocks all.
  while IFS= read -r line; do :; done
})

# Passes the directories on standard input in which the index has files. They are lines, with NUL for a line end in a name.
with_files() {
  g ls-files -z | tr '\0\n' '\n\0' | sed -n ':up
s|/[^/]*$||
tprint
d
:print
p
bup' | sort -u >"$M/tracked"
  sort -u | sort - "$M/tracked" | uniq -d
  rm -f -- "$M/tracked"
}

# Removes repositories in directories of the commit: git cleans no name .git in a directory that has files of the index. Those in
# other directories are left to git, which knows what the pool keeps. It looks again, so as not to go through a new link.
unhide() {
  find . -path ./.git -prune -o -name .git -prune -print0 2>/dev/null | tr '\0\n' '\n\0' | sed 's|^\./||; s|/\.git$||' |
    with_files | sed 's|^|./|; s|$|/.git|' | tr '\0\n' '\n\0' >"$M/hidden"
  [ -s "$M/hidden" ] || return 0
  # shellcheck disable=SC2016
  e=$(xargs -0 sh -c '
    find "$@" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
    rm -rf -- "$@" 2>/dev/null || {
      chattr -R -f -i -a -- "$@"
      rm -rf -- "$@"
    }' sh <"$M/hidden" 2>&1) || say CANNOT_REMOVE "$e"
}

# Ends, since git cannot write the files of the commit for the reason $1. In an empty tree, from true objects and with room enough,
# that is the commit's fault. Without room, in bytes or in inodes, it is the host's.
no_checkout() {
  why=$(printf '%s' "$1" | head -c 1000)
  # It took what there was.
  if no_room .; then
    rm -f -- "$G/index" "$G/index.lock"
    say DISK_FULL "git cannot write the files of commit $want: the file system of $T has $room left: $why"
  fi
  if [ "$mode" = wipe ]; then
    find . ! -name . -prune ! -name .git -exec rm -rf -- {} + 2>/dev/null
    needed=$(g ls-tree -r -l --full-tree "$tree" | awk '$4 ~ /^[0-9]+$/ { n += $4 } END { printf "%d", n / 1024 + 1024 }')
    free=$(df -Pk . 2>/dev/null | awk 'NR == 2 { print $4 }')
    g ls-tree -r --full-tree "$tree" | sed -n 's/^\([0-7]*\) blob /\1 /p' >"$M/entries"
    # Each file and each directory takes one.
    files=$(g ls-tree -r -t --full-tree "$tree" | wc -l)
    inodes=$(df -Pi . 2>/dev/null | awk 'NR == 2 && $2 > 0 { print $4 }')
    if [ -n "$inodes" ] && [ "$inodes" -lt "$((files + 16))" ] 2>/dev/null; then
      say DISK_FULL "$T has $inodes free inodes, and commit $want has $((files)) files and directories"
    fi
    [ "${free:-0}" -gt "${needed:-0}" ] 2>/dev/null ||
      say DISK_FULL "$T has ${free:-0} KiB free, and commit $want needs ${needed:-0} KiB"
    if genuine "$M/entries"; then
      # It lists an empty directory that is not in the object store, which a check would miss.
      rm -f -- "$G/index" "$G/index.lock"
      say COMMIT_UNFIT "git cannot write the files of commit $want, in an empty directory either: $why"
    fi
  fi
  say CHECKOUT_FAILED "$why"
}

sweep() {
  out='=0'
  [ "$policy" = clean ] || return 0
  [ ! -s "$M/hidden" ] || unhide
  if [ -n "$odd" ]; then
    find . -path ./.git -prune -o ! -type f ! -type d ! -type l -exec rm -f -- {} + 2>/dev/null
  fi
  out=$({
    g clean -ffdx "$@" 2>&1
    echo "=$?"
  } | tail -c 1000)
  case $out in *=0) return 0 ;; esac
  chattr -R -i -a -- . 2>/dev/null
  out=$({
    g clean -ffdx "$@" 2>&1
    echo "=$?"
  } | tail -c 1000)
  case $out in *=0) ;; *) say CANNOT_REMOVE "git clean: $(printf '%s\n' "$out" | sed '/^Removing /d; /^=[0-9]*$/d' | paste -s -d ' ' -)" ;; esac
}

# Turns what sweep leaves in $out into one line for people: the names of what it removed, and git's warnings.
removed() {
  sed 's/^Removing //; /^=[0-9]*$/d' | paste -s -d ' ' -
}

# Turns `diff-index --raw` or `diff-files --raw` into "mode id<tab>name" of the left side, which makes an index forget the time
# stamps of these files. Names are as git quotes them.
left_side() {
  sed -n "s/^:\([0-7]*\) [0-7]* \([0-9a-f]*\) [0-9a-f]* [A-Z][0-9]*$tab/\1 \2$tab/;/^000000/!p"
}

# The names in such a list, each behind "./" and before a NUL; all that there are where one is quoted.
names() {
  cut -f2- >"$M/names"
  if grep -q '^"' "$M/names"; then
    # But for what is not meant to be there.
    g ls-files -t -z | tr '\0\n' '\n\0' | sed '/^S /d; s/^. //' >"$M/names"
  fi
  sed 's|^|./|' "$M/names" | tr '\0\n' '\n\0'
  rm -f -- "$M/names"
}

# Removes the files on standard input, each behind "./" and before a NUL, that a look at their bytes would not find wrong, for their
# mode, another name or their owner. Files of more than 256 MiB go if their size is not the blob's: a sparse file has no end within
# reach. The checkout writes them again.
remove_odd() {
  cat >"$M/odd"
  xargs -0 sh -c 'find "$@" -prune -type f \( -links +1 -o ! -user "$(id -u)" -o ! -perm 644 ! -perm 755 \) -exec rm -f -- {} +' \
    sh <"$M/odd" 2>/dev/null
  # shellcheck disable=SC2016
  large='for f; do
      [ "$(stat -c %s -- "$f")" = "$(git --git-dir="$git_dir" cat-file -s ":0:${f#./}")" ] || rm -f -- "$f"
    done'
  git_dir=$G large=$large xargs -0 sh -c 'find "$@" -prune -type f -size +524288 -exec sh -c "$large" sh {} +' \
    sh <"$M/odd" 2>/dev/null
  rm -f -- "$M/odd"
}

# Hashes what the list $1 names, and leaves in meta/zero what is not what it should be: by a look at the bytes and not by a time
# stamp, so that the index that the checkout wrote stands. Links and submodules are left to who compares all. Sets $written, the
# number of entries, and $modules, that of submodules among them.
hash_written() {
  : >"$M/hashes"
  : >"$M/zero"
  counts=$(hashes=$M/hashes zero=$M/zero awk '
    { print >($0 ~ /^100/ ? ENVIRON["hashes"] : ENVIRON["zero"]) }
    /^100/ { n++ }
    /^160000 / { m++ }
    END { print NR, n + 0, m + 0 }' "$1")
  read -r written n modules <<END
$counts
END
  [ "$n" != 0 ] || return 0
  if [ "$n" -gt 2000 ]; then
    half=$((n / 2))
    head -n $half "$M/hashes" | cut -f2- | g hash-object --stdin-paths >"$M/hashed.1" 2>/dev/null &
    tail -n +$((half + 1)) "$M/hashes" | cut -f2- | g hash-object --stdin-paths >"$M/hashed.2" 2>/dev/null
    wait $!
    cat "$M/hashed.1" "$M/hashed.2"
    rm -f -- "$M/hashed.1" "$M/hashed.2"
  else
    cut -f2- "$M/hashes" | g hash-object --stdin-paths 2>/dev/null
  fi | paste "$M/hashes" - |
    # Where one could not be read the rest have no line.
    awk -F '\t' '{ split($1, entry, " ") } entry[2] != $3 { print $1 "\t" $2 }' >>"$M/zero"
}

if [ -z "$known" ]; then
  rm -f -- "$G/index"
  # Without the former commit its files cannot be told from those to keep. An empty tree keeps nothing.
  [ "$(ls -A)" != .git ] || mode=wipe
  if [ "$mode" = gentle ]; then
    at=$(g rev-parse -q --verify HEAD 2>/dev/null) && was=$(g rev-parse -q --verify 'HEAD^{tree}' 2>/dev/null) &&
      { g ls-tree -r -z --full-tree "$was" || printf 'broken\0'; } 2>/dev/null | g update-index -z --index-info 2>/dev/null ||
      mode=wipe
  fi
  if [ "$mode" = wipe ]; then
    rm -f -- "$G/index" "$G/index.lock"
    e=$(find . ! -name . -prune ! -name .git -exec rm -rf -- {} + 2>&1) || {
      chattr -R -i -a -- . 2>/dev/null
      e=$(find . ! -name . -prune ! -name .git -exec rm -rf -- {} + 2>&1) || say CANNOT_REMOVE "$e"
    }
    g read-tree --empty
    at=
    known=empty
    was=$(g hash-object -t tree --stdin </dev/null)
  fi
  links=maybe
  sweep "$@"
  find . -path ./.git -prune -o -type f \( -size +524288 -o -links +1 -o ! -user "$(id -u)" -o ! -perm 644 ! -perm 755 \) \
    -print0 2>/dev/null | tr '\0\n' '\n\0' | sed 's|^\./||' | sort >"$M/odd"
  if [ -s "$M/odd" ]; then
    { cat "$M/odd" && g ls-files -z | tr '\0\n' '\n\0'; } | sort | uniq -d | sed 's|^|./|' | tr '\0\n' '\n\0' >"$M/names"
    remove_odd <"$M/names"
    rm -f -- "$M/names"
  fi
  rm -f -- "$M/odd"
  # Directories have the mode that git makes them with. Those that the commit does not have keep theirs.
  if [ -g "$D" ]; then dirs=2755 special=u-s,g+s,o-t; else dirs=755 special=ug-s,o-t; fi
  find . -path ./.git -prune -o -type d ! -perm $dirs -print0 2>/dev/null | tr '\0\n' '\n\0' | sed 's|^\./||' >"$M/odd"
  if [ -s "$M/odd" ]; then
    with_files <"$M/odd" | sed 's|^|./|' | tr '\0\n' '\n\0' | xargs -0 chmod "u=rwx,go=rx,$special" -- . 2>/dev/null
  fi
  rm -f -- "$M/odd"
  # Times of the future would make build systems run again for ever, or never.
  find . -path ./.git -prune -o -newer "$M/clock" -exec touch -h -r "$M/clock" {} + 2>/dev/null
fi

written=0 modules=0
: >"$M/changes"
# The directories that the pool has nothing in; those above first.
outer() {
  g ls-files | sed "s/^/$tab/" | cone out | cut -f2- | awk '
    !/^"/ { d = $0; while (match(d, "/[^/]*$")) { d = substr(d, 1, RSTART - 1); if (seen[d]++) break; print "./" d } }' | sort
}
if [ -n "$W" ] && [ "$known" != yes ]; then
  # Git takes what a link leads to for what is meant to be missing. One by one: nothing is looked at behind a link.
  outer | tr '\n' '\0' | xargs -0 sh -c 'find "$@" -prune -type l -exec rm -f -- {} \;' sh 2>/dev/null
fi
# Git puts away what the pool does not have of the tree, whether the commit is another or not.
if [ "$was" != "$tree" ] || { [ -n "$W" ] && [ "$known" != yes ]; }; then
  e=$(g diff-index --cached --raw --no-abbrev --no-renames --ignore-submodules=none "$tree" 2>&1 >"$M/dirty") ||
    say CHECKOUT_FAILED "$(printf '%s' "$e" | head -c 1000)"
  if [ -n "$W" ]; then left_side <"$M/dirty" | cone in; else left_side <"$M/dirty"; fi >"$M/changes"
  # Files that both have are not written again, though other attributes may give them other bytes.
  attributes=
  if [ "$known" = yes ] &&
    grep -q -e "$tab\"\{0,1\}\.gitattributes\"\{0,1\}\$" -e '/\.gitattributes"\{0,1\}$' "$M/dirty"; then
    attributes=changed
    entries >"$M/entries"
    values "$M/entries" >"$M/before"
  fi
  # With two trees it leaves alone what both have, and has no listing of trees from the store.
  e=$(g read-tree --reset -u "$was" "$tree" 2>&1) || no_checkout "$e"
  hash_written "$M/changes"
  if [ -n "$attributes" ]; then
    entries >"$M/entries"
    values "$M/entries" | not_in "$M/before" | sed 's/^[^ ]* //' >>"$M/zero"
    rm -f -- "$M/before"
  fi
  [ ! -s "$M/zero" ] || g update-index --index-info <"$M/zero" || say CHECKOUT_FAILED "the index cannot be written"
  case $links in 0) [ "$modules" = 0 ] || links=maybe ;; esac
fi
# The entries of an index that is known, or was empty before, are compared with the time stamps of the files, beside the next step.
comparing=
if [ -n "$known" ]; then
  g diff-files --raw --no-abbrev --no-renames --ignore-submodules=none >"$M/dirty" 2>/dev/null &
  comparing=$!
fi
e=$({ printf '%s\n' "$want" >"$G/HEAD.new" && mv -f -- "$G/HEAD.new" "$G/HEAD"; } 2>&1) || say CHECKOUT_FAILED "$e"
if [ -e "$G/refs/wharfinger" ]; then g update-ref -d refs/wharfinger/want 2>/dev/null; fi
if [ -n "$default" ] && { [ -f "$G/refs/remotes/origin/$default" ] ||
  g rev-parse -q --verify "refs/remotes/origin/$default" >/dev/null 2>&1; }; then
  g symbolic-ref refs/remotes/origin/HEAD "refs/remotes/origin/$default"
fi
sweep "$@"
first=$out

# A submodule's place may have a repository of its own, which neither `clean` nor `read-tree` touches.
places() {
  g ls-files -s -z | tr '\0\n' '\n\0' | sed -n "s/^160000 [0-9a-f]* [0-9]$tab//p" | tr '\0\n' '\n\0'
}
if [ "$links" != 0 ]; then
  here=$(pwd -P)
  places | xargs -0 sh -c 'here=$1; shift
    set -f
    for p; do
      case $p in */*) up=${p%/*} ;; *) up=. ;; esac
      # Nothing that the commit has is a link on the way down to it.
      IFS=/ q=.
      for c in $up; do
        q=$q/$c
        if [ -L "$q" ] || { [ -e "$q" ] && [ ! -d "$q" ]; }; then rm -f -- "$q"; fi
      done
      unset IFS
      mkdir -p -- "./$up" || exit 1
      # The dot keeps line ends in the name.
      at=$(cd -P -- "./$up" && pwd -P && echo .) || exit 1
      [ "$up" = . ] || [ "$at" = "$here/$up
." ] || exit 1
      rm -rf -- "./$p" && mkdir -p -- "./$p" || exit 1
    done' sh "$here" || say CANNOT_REMOVE "cannot empty the place of a submodule"
  links=$(places | tr -cd '\0' | wc -c)
fi
