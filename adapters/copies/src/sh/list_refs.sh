# Waits for the remote's answer to query_remote.sh, and compares it with the copy.
#
# Follows:   query_remote.sh; normalise.sh may stand between
# Arguments: one more id to look for in the copy, or empty.
# Prints:    an id, a tab and a name a line: HEAD, the wanted names, and the first ref as "any"; the default branch as
#            "ref: refs/heads/NAME", a tab, HEAD; "commit" or "have", a tab and an id that the copy has as a commit or as another
#            object; "fresh" and a tab, if the copy's branches of the remote are the remote's.
# Leaves:    meta/heads, the remote's branches, sorted.
# Exits:     0; 97, the remote failed, with its reason on standard error; 98, no answer in time; 93, 127 (prelude.sh).
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
# Names are data and compared as a whole; they are no part of a pattern or a program. With $1 = ids it prints ids alone.
named() {
  listing | what=$1 wanted=$names awk '
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
    ENVIRON["what"] == "ids" { if (id && name in known) print left; next }
    id && !any++ { print left "\tany" }
    id && name in known
    name == "HEAD" && left ~ /^ref: refs\/heads\// '
}
named all
# Git reads the copy only after normalise.sh.
if [ -n "$normal" ]; then
  {
    named ids
    [ -z "$1" ] || printf '%s\n' "$1"
  } | g cat-file --batch-check 2>/dev/null |
    sed -n -e "s/^\([0-9a-f]*\) commit [0-9]*\$/commit${tab}\1/p" -e "s/^\([0-9a-f]*\) [a-z]* [0-9]*\$/have${tab}\1/p"
  # Only a fetch can update the end of a shallow history.
  if [ -z "$H" ] &&
    g for-each-ref --format='%(objectname)%09refs/heads/%(refname:lstrip=3)' refs/remotes/origin 2>/dev/null | sort | cmp -s - "$M/heads"; then
    printf 'fresh\t\n'
  fi
fi
exit 0
