# Asks the remote what it has. $1: its address; the rest: names to look for. Leaves all branches in meta/heads, sorted, and prints the rest: HEAD, the names, and the first branch as "any".
# Nothing of the copy takes part, so a failure (97) is the remote's.
have_git
far_end
url=$1
shift
login
tab=$(printf '\t')
(GIT_DIR=$M/none && export GIT_DIR && cd / && exec git ls-remote --symref -- "$url" HEAD 'refs/heads/*' "$@") \
  >"$M/listing" || exit 97
grep "^[0-9a-f]*${tab}refs/heads/" "$M/listing" | sort >"$M/heads"
sed -n "/^[0-9a-f]/{s/${tab}.*/${tab}any/;p;q;}" "$M/listing"
sed "/${tab}refs\/heads\//d" "$M/listing"
for name; do grep -F -- "$tab$name" "$M/listing"; done
exit 0
