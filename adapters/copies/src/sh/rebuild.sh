# Brings the tree to commit $1. $2: "clean" or "keep" (what git does not track), $3: "gentle", or "wipe" to start from an
# empty directory. The index is made anew, so no flag or time stamp in an old one can hide a changed file; files that are
# right already are not written again and keep their times. $4: the remote's default branch, or empty.
have_git
cd -P -- "$T" || say TREE_MISSING "$T cannot be entered"
rm -f -- "$G/index" "$G/index.lock"
wipe=$3
old=
if [ "$wipe" = gentle ]; then
  # Without the former commit nobody can tell its files from what is to be kept.
  if ! old=$(g rev-parse -q --verify 'HEAD^{tree}' 2>/dev/null) || ! g read-tree "$old" 2>/dev/null; then wipe=wipe; fi
fi
if [ "$wipe" = wipe ]; then
  unlock "$T"
  e=$(find . ! -name . -prune ! -name .git -exec rm -rf -- {} + 2>&1) || {
    chattr -R -i -a -- . 2>/dev/null
    e=$(find . ! -name . -prune ! -name .git -exec rm -rf -- {} + 2>&1) || say CANNOT_REMOVE "$e"
  }
  g read-tree --empty
fi
sweep() {
  [ "$1" = clean ] || return 0
  # Git does not see pipes, sockets and devices at all.
  find . -path ./.git -prune -o ! -type f ! -type d ! -type l -exec rm -f -- {} + 2>/dev/null
  g clean -ffdxq >/dev/null 2>&1 && return 0
  chattr -R -i -a -- . 2>/dev/null
  e=$(g clean -ffdxq 2>&1) || say CANNOT_REMOVE "$(printf '%s' "$e" | head -c 1000)"
}
sweep "$2"
# Tracked files that a look at their bytes would not find wrong: which have modes that git does not know, another name where
# somebody may write to them, or another owner. And those so large that a look would take too long. They are written again.
find . -path ./.git -prune -o -type f \( -size +524288 -o -links +1 -o ! -user "$(id -u)" -o ! -perm 644 ! -perm 755 \) \
  -print0 2>/dev/null | tr '\0\n' '\n\0' | sed 's|^\./||' | sort >"$M/odd"
if [ -s "$M/odd" ]; then
  { cat "$M/odd" && g ls-files -z | tr '\0\n' '\n\0'; } | sort | uniq -d | sed 's|^|./|' | tr '\0\n' '\n\0' |
    xargs -0 rm -f --
fi
rm -f -- "$M/odd"
g update-index -q --refresh >/dev/null 2>&1 || :
e=$(g checkout --quiet --force --detach "$1" 2>&1) || say CHECKOUT_FAILED "$(printf '%s' "$e" | head -c 1000)"
g update-ref -d refs/wharfinger/want 2>/dev/null
if [ -n "$4" ] && g rev-parse -q --verify "refs/remotes/origin/$4" >/dev/null 2>&1; then
  g symbolic-ref refs/remotes/origin/HEAD "refs/remotes/origin/$4"
fi

# What lies in a submodule's place is a repository of its own, which neither `clean` nor `checkout` touches.
tab=$(printf '\t')
here=$(pwd -P)
g ls-files -s -z | tr '\0\n' '\n\0' | sed -n "s/^160000 [0-9a-f]* [0-9]$tab//p" | tr '\0\n' '\n\0' |
  xargs -0 sh -c 'here=$1; shift
    for p; do
      case $p in */*) up=${p%/*} ;; *) up=. ;; esac
      at=$(cd -P -- "./$up" && pwd -P) || exit 1
      [ "$up" = . ] || [ "$at" = "$here/$up" ] || exit 1
      rm -rf -- "./$p" && mkdir -p -- "./$p" || exit 1
    done' sh "$here" || say CANNOT_REMOVE "cannot empty the place of a submodule"
sweep "$2"
