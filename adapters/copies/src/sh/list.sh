# Waits for what ask.sh has asked. Leaves all branches in meta/heads, sorted, and prints the rest: HEAD, the names, the first
# branch as "any", and as "have" (or "commit", if it is one) which of them the copy has the objects of; and "fresh" if the copy's
# branches of the remote are those that it has. $1: another id to look for there, or empty.
# A failure is the remote's: 97, or 98 if there was no answer in time.
tab=$(printf '\t')
wait "$asking"
rc=$?
asking=
exec 5>&-
listing=$(cat <&4)
exec 4<&-
listing() { printf '%s\n' "$listing"; }
if [ $rc != 0 ]; then
  tail -c 2000 "$M/listing.why" >&2
  [ $rc != 124 ] && [ $rc != 137 ] || exit 98
  exit 97
fi
rm -rf -- "$M/heads"
listing | grep "^[0-9a-f]*${tab}refs/heads/" | sort >"$M/heads"
listing | sed -n "/^[0-9a-f]/{s/${tab}.*/${tab}any/;p;q;}"
listing | sed "/${tab}refs\/heads\//d"
for name in $names; do listing | grep -F -- "$tab$name"; done
# Git reads what is there only after it was brought back to what we know.
if [ -n "$normal" ]; then
  {
    listing | sed -n "s/^\([0-9a-f]*\)${tab}HEAD\$/\1/p"
    for name in $names; do listing | sed -n "s|^\([0-9a-f]*\)${tab}$name\$|\1|p"; done
    [ -z "$1" ] || printf '%s\n' "$1"
  } | g cat-file --batch-check 2>/dev/null |
    sed -n -e "s/^\([0-9a-f]*\) commit [0-9]*\$/commit${tab}\1/p" -e "s/^\([0-9a-f]*\) [a-z]* [0-9]*\$/have${tab}\1/p"
  # Where a history was cut off is said by a fetch alone.
  if [ -z "$H" ] &&
    g for-each-ref --format='%(objectname)%09refs/heads/%(refname:lstrip=3)' refs/remotes/origin 2>/dev/null | sort | cmp -s - "$M/heads"; then
    printf 'fresh\t\n'
  fi
fi
exit 0
