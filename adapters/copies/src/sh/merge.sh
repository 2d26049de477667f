# Merges refs onto a commit, in their order, and brings the result into the copy. Names and times do not depend on the host, so the
# same inputs give the same id on each host.
#
# Follows:   scratch.sh
# Arguments: the mirror; the object format; "into" the copy, or "anew" for every object again; seconds to wait for the mirror; the
#            commit; then each ref to merge as "ID NAME".
# Prints:    "mirror", a tab and the mirror's mark; then "commit", a tab and the result; or "conflict" or "unrelated", a tab and the
#            index of the ref from 0, and after "conflict" each "file".
# Exits:     0; 1, the copy did not take the result; 95, the mirror did not give the commits; 93, 127 (prelude.sh).
X=$1 format=$2 mode=$3 patience=$4 base=$5
shift 5
have_git
far_end
S=$M/scratch
scratch "$format"
exec 9>>"$X.use" && flock -s -w "$patience" 9 || exit 95
printf 'mirror\t%s\n' "$(head -c 100 "$X/made" 2>/dev/null)"
{
  echo "+$base:refs/in/base"
  for a; do echo "+${a%% *}:refs/in/${a%% *}"; done
} >"$S/wanted"
s fetch --quiet --no-tags --no-recurse-submodules --no-write-fetch-head --stdin "$X" <"$S/wanted" >&2 || exit 95
exec 9>&-

date_of() { s show -s --format=%ct "$1"; }

at=$base
i=0
for a; do
  id=${a%% *} name=${a#* }
  if within "$id" "$at"; then
    :
  elif within "$at" "$id"; then
    at=$id
  else
    related "$at" "$id" || {
      printf 'unrelated\t%s\n' $i
      exit 0
    }
    merge_trees "$at" "$id" || {
      printf 'conflict\t%s\n' $i
      tell_files
      exit 0
    }
    one=$(date_of "$at") two=$(date_of "$id")
    [ "$one" -ge "$two" ] || one=$two
    who='Wharfinger' where='wharfinger@localhost' when="@$one +0000"
    at=$(printf 'Merge %s\n\n%s\n' "$name" "$id" |
      GIT_AUTHOR_NAME=$who GIT_AUTHOR_EMAIL=$where GIT_AUTHOR_DATE=$when GIT_COMMITTER_NAME=$who \
        GIT_COMMITTER_EMAIL=$where GIT_COMMITTER_DATE=$when s commit-tree -p "$at" -p "$id" "$tree" 2>"$S/complaint") ||
      say MERGE_FAILED "$(head -c 1000 "$S/complaint")"
  fi
  i=$((i + 1))
done
s update-ref refs/out "$at" || exit 95
set -- "$S" '+refs/out:refs/wharfinger/want'
[ "$mode" != anew ] || set -- --refetch "$@"
g fetch --quiet --force --no-tags --no-recurse-submodules --no-write-fetch-head "$@" >&2 || exit 1
printf 'commit\t%s\n' "$at"
