# Asks the remote what it has. $1: its address; the rest: names to look for. Leaves all branches in meta/heads, sorted, and prints the rest: HEAD, the names, and the first branch as "any".
# Nothing of the copy takes part, so a failure (97) is the remote's.
have_git
far_end
url=$1
shift
tab=$(printf '\t')
# Held in memory: what a file said could be changed under us, and then the request would seem to be at fault.
listing=$(GIT_DIR=$M/none && export GIT_DIR && cd / && exec git ls-remote --symref -- "$url" HEAD 'refs/heads/*' "$@") || exit 97
listing() { printf '%s\n' "$listing"; }
listing | grep "^[0-9a-f]*${tab}refs/heads/" | sort >"$M/heads"
listing | sed -n "/^[0-9a-f]/{s/${tab}.*/${tab}any/;p;q;}"
listing | sed "/${tab}refs\/heads\//d"
for name; do listing | grep -F -- "$tab$name"; done
exit 0
