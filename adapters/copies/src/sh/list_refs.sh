# Waits for the remote's answer to query_remote.sh, and compares it with the copy.
#
# Follows:   query_remote.sh; normalise.sh may stand between; go_on.sh may follow
# Arguments: one more id to look for in the copy, or empty. It shifts it away.
# Prints:    an id, a tab and a name a line: HEAD, the wanted names, and the first ref as "any"; the default branch as
#            "ref: refs/heads/NAME", a tab, HEAD; "commit" or "have", a tab and an id that the copy has as a commit or as another
#            object; "fresh" and a tab, if the copy's branches of the remote are the remote's.
# Sets:      $said, what it prints.
# Leaves:    meta/heads, the remote's branches, sorted.
# Exits:     0, if no script follows; 97, the remote failed, with its reason on standard error; 98, no answer in time; 93, 127
#            (prelude.sh).
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
heads=$(listing | grep "^[0-9a-f]*${tab}refs/heads/" | sort)
[ -z "$heads" ] || heads=$heads$newline
printf '%s' "$heads" >"$M/heads"
# Names are data and compared as a whole; they are no part of a pattern or a program.
said=$(listing | wanted=$names awk '
  BEGIN {
    known["HEAD"] = 1
    n = split(ENVIRON["wanted"], list, "\n")
    for (i = 1; i <= n; i++) known[list[i] ""] = 1
  }
  {
    at = index($0, "\t")
    left = substr($0, 1, at - 1)
    name = substr($0, at + 1)
    id = left ~ /^[0-9a-f]+$/
  }
  id && !any++ { print left "\tany" }
  id && name in known
  name == "HEAD" && left ~ /^ref: refs\/heads\// ')
# Prints the ids of the wanted names.
ids() {
  while IFS=$tab read -r id name; do
    case $id:$name in 'ref: '* | :* | *:any) ;; *) printf '%s\n' "$id" ;; esac
  done <<END
$said
END
}
# Git reads the copy only after normalise.sh.
if [ -n "$normal" ]; then
  has=$({
    ids
    [ -z "$1" ] || printf '%s\n' "$1"
  } | g cat-file --batch-check 2>/dev/null | while read -r id kind size; do
    case $kind:$size in
    missing: | ambiguous: | :*) ;;
    commit:*) printf 'commit\t%s\n' "$id" ;;
    *) printf 'have\t%s\n' "$id" ;;
    esac
  done)
  [ -z "$has" ] || said=$said$newline$has
  # Only a fetch can update the end of a shallow history.
  if [ -z "$H" ]; then
    own=$(g for-each-ref --sort=refname --sort=objectname --format='%(objectname)%09refs/heads/%(refname:lstrip=3)' \
      refs/remotes/origin 2>/dev/null)
    [ -z "$own" ] || own=$own$newline
    [ "$own" != "$heads" ] || said="$said${newline}fresh$tab"
  fi
fi
printf '%s\n' "$said"
shift
