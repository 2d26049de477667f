# Loads the large files of a commit, or proves that none is a pointer in the tree.
#
# Follows:   credentials.sh
# Arguments: the commit; "before" to load its files into the host's store, "anew" to remove spoilt ones there first, or "after" to
#            prove the tree.
# Input:     credentials (credentials.sh), unless "after".
# Prints:    with exit code 97, the ids of the files that did not come, one a line.
# Exits:     0; 93, 127 (prelude.sh); 97.
have_git
command -v git-lfs >/dev/null 2>&1 || say LFS_MISSING "the host has no git-lfs, and the pool has lfs = true"
cd -P -- "$T" || say TREE_MISSING "$T cannot be entered"
store=${D%/*}/mirrors/lfs
X=$M/lfs.index
paths=$M/lfs.paths
rm -rf -- "$X" "$X.lock" "$paths" "$M/lfs.want"
GIT_INDEX_FILE=$X g read-tree "$1" 2>/dev/null || exit 0 # the checkout will say what is missing
# A file that looks like a pointer, without the attribute, is an ordinary file.
GIT_INDEX_FILE=$X g ls-files -z | GIT_INDEX_FILE=$X g check-attr --cached --stdin -z filter | tr '\0\n' '\n\0' |
  awk 'NR % 3 == 1 { p = $0 } NR % 3 == 0 && $0 == "lfs" { print p }' >"$paths"
rm -f -- "$X"
[ -s "$paths" ] || exit 0
c=$(cat "$G/config" && printf .)
git --git-dir="$G" --work-tree="$T" lfs ls-files --long "$1" 2>/dev/null |
  awk 'NR == FNR { want[$0] = 1; next } { p = substr($0, 68) } (p in want) && $1 ~ /^[0-9a-f]+$/ { print $1 "\t" p }' "$paths" - >"$M/lfs.want"
cut -f2- "$M/lfs.want" | sed 's|^|./|' | tr '\n\0' '\0\n' >"$paths"
# Prints the files of the list that are pointers in the tree, each with a NUL at its end.
pointers() {
  xargs -0 -r sh -c 'find "$@" -maxdepth 0 -type f -size -3 -exec sh -c "$pick" sh {} + 2>/dev/null' sh <"$paths"
}
# shellcheck disable=SC2089
pick='for f; do
  case $(head -c 42 -- "$f" 2>/dev/null) in "version https://git-lfs.github.com/spec/v1"*) printf "%s\0" "$f" ;; esac
done'
# shellcheck disable=SC2090
export pick
if [ "$2" = after ]; then
  left=$(pointers | tr '\0' '\n' | head -c 1000)
  [ -z "$left" ] || say PROOF_FAILED "the content of large files is missing: $left"
  exit 0
fi
pointers | xargs -0 -r rm -f --

object() { printf '%s/objects/%.2s/%.2s/%s' "$store" "$1" "${1#??}" "$1"; }
missing() {
  cut -f1 "$M/lfs.want" | sort -u | while read -r o; do
    f=$(object "$o")
    if [ -f "$f" ] && [ ! -L "$f" ]; then touch -c -- "$f"; else printf '%s\n' "$o"; fi
  done
}
if [ "$2" = anew ]; then
  cut -f1 "$M/lfs.want" | sort -u | while read -r o; do
    f=$(object "$o")
    [ "$(sha256sum <"$f" 2>/dev/null | cut -d' ' -f1)" = "$o" ] || rm -rf -- "$f"
  done
fi
[ -n "$(missing)" ] || exit 0
# The serving end of a repository in a directory would use lfs.storage as its own.
only_dir "$store"
e=$({ rm -rf -- "$G/lfs" && mkdir -p -- "$store/objects" "$G/lfs" && ln -s "$store/objects" "$G/lfs/objects"; } 2>&1) ||
  say CANNOT_CREATE "$e"
login
git --git-dir="$G" --work-tree="$T" -c lfs.storage= lfs fetch origin "$1" >&2
rm -rf -- "$G/lfs"
# Git-lfs makes hard links to files of a repository in a directory. A build could damage the origin by them.
find "$store/objects" -type f -links +1 -exec sh -c '
  for f; do cp -- "$f" "$f.$$" && mv -f -- "$f.$$" "$f" || rm -f -- "$f" "$f.$$"; done' sh {} +
# Git-lfs stores the access mode of a server in the configuration.
[ "$(cat "$G/config" && printf .)" = "$c" ] || printf '%s' "${c%.}" >"$G/config"
# Removes files that no lease has needed for 30 days, and incomplete ones.
find "$store/objects" -type f -mtime +30 -exec rm -f -- {} + 2>/dev/null
left=$(missing)
[ -z "$left" ] || {
  printf '%s\n' "$left"
  exit 97
}
exit 0
