# Follows rebuild.sh. Proves that the tree is commit $1, by the chain of hashes from its name down to each file, trusting no object of the
# store and no time stamp. $2: "clean" (nothing else is there) or "keep".
have_git
cd -P -- "$T" || say TREE_MISSING "$T cannot be entered"
W=$1
P=$M/proof.index
fail() { say PROOF_FAILED "$*"; }
head=$(g rev-parse -q --verify HEAD 2>/dev/null) || fail "HEAD names nothing"
[ "$head" = "$1" ] || fail "HEAD is $head"
# Git does not hash what it reads, so a forged object passes for a true one.
c=$(g cat-file commit "$1" 2>/dev/null | g hash-object -t commit --literally --stdin 2>/dev/null)
[ "$c" = "$1" ] || fail "the stored commit $1 is forged or missing"
tree=$(g cat-file commit "$1" | sed -n '1s/^tree //p')
rm -f -- "$G/index" "$G/index.lock" "$P" "$P.lock"
e=$(g read-tree "$1" 2>&1) || fail "$(printf '%s' "$e" | head -c 1000)"
g ls-files -s -z | GIT_INDEX_FILE=$P g update-index -z --index-info || fail "the index cannot be copied"
t=$(GIT_INDEX_FILE=$P g write-tree --missing-ok 2>/dev/null)
rm -f -- "$P"
[ "$t" = "$tree" ] || fail "a stored directory listing of $1 is forged"

g update-index -q --refresh >/dev/null 2>&1 || :
# A file that does not hash to its blob may still be right: line-end rules do not round-trip in every repository. Then it
# must be what the true blob, passed through those rules, gives. For a large file they give what the host's store has, which
# proves nothing.
bad=$(g diff-files --raw -z --no-renames --ignore-submodules=none | tr '\0\n' '\n\0' |
  while IFS= read -r line && IFS= read -r path; do
    # shellcheck disable=SC2086
    set -- $line
    if [ "$1" = ":$2" ] && [ "$5" = M ] && [ -f "./$path" ] && [ ! -L "./$path" ] && ! large "$path" &&
      [ "$(g cat-file blob "$3" 2>/dev/null | g hash-object --stdin 2>/dev/null)" = "$3" ] &&
      g cat-file --filters "$W:$path" 2>/dev/null | cmp -s - "./$path"; then
      continue
    fi
    printf '%s %s, ' "$5" "$path"
  done | head -c 1000)
[ -z "$bad" ] || fail "files differ from the commit: ${bad%, }"
if [ "$2" = clean ]; then
  more=$(g ls-files -o --directory 2>&1 | head -c 1000)
  [ -n "$more" ] || more=$(find . -path ./.git -prune -o ! -type f ! -type d ! -type l -print 2>&1 | head -c 1000)
  [ -z "$more" ] || fail "files are there that the commit does not have: $more"
fi
