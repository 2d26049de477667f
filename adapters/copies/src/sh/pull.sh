# Brings branches and a wanted commit from the origin into the mirror, and from there into the copy.
#
# Follows:   credentials.sh, mirror.sh
# Arguments: the full name of the wanted ref on the remote, or a full id; its id; both are empty for branches alone; the tag to set
#            in the copy, or empty; "into" the copy, "anew" for every object again, or "mirror" for the mirror alone; "offline" if
#            the origin does not answer, or empty; the mark of the mirror to remove first, or empty.
# Input:     credentials (credentials.sh).
# Prints:    "mirror", a tab and the mirror's mark; "commit", a tab and the commit.
# Exits:     0; 94, the origin did not give it; 95, the mirror did not give it; 96, the origin does not have the id; 98, no time
#            left; 99, it is no commit; 93, 127 (prelude.sh).
name=$1 oid=$2 tag=$3 mode=$4 offline=$5 drop=$6
flock -w "$clone_limit" 8 || exit 98
if [ -n "$drop" ] && [ "$(head -c 100 "$X/made" 2>/dev/null)" = "$drop" ]; then
  flock -w 30 9
  remove "$X"
  flock -u 9
fi
lost() {
  echo "another process removes the mirror" >&2
  exit 95
}
new=
if ! tidy; then
  [ -z "$offline" ] || {
    echo "the host has no mirror of the repository" >&2
    exit 94
  }
  make
  new=yes
fi
heads() { m for-each-ref --format='%(objectname)%09%(refname)' refs/heads 2>/dev/null | sort; }
# Whether the wanted object is there, and whether the tips of all branches are commits. Their histories are not checked.
have() { [ -z "$oid" ] || m cat-file -e "$oid" 2>/dev/null; }
tips() { ! cut -f1 "$M/heads" | m cat-file --batch-check 2>&1 | grep -qv '^[0-9a-f]* commit '; }
# Whether the mirror has its refs and their histories. `fsck --connectivity-only` would accept a tip whose parent cannot be read.
sound() { { [ ! -s "$M/heads" ] || [ -n "$(heads)" ]; } && m rev-list --objects --all --quiet >/dev/null 2>&1; }

if [ -z "$offline" ]; then
  set --
  if [ -z "$new" ] && ! { heads | cmp -s - "$M/heads" && tips; }; then
    # Pruned first: a branch `feat/x` cannot be created where `feat` was.
    set -- --prune origin '+refs/heads/*:refs/heads/*'
  fi
  in=
  if [ "$name" != "$oid" ] && ! have; then
    [ $# != 0 ] || set -- origin
    # A name that no ref of the remote can have.
    set -- "$@" "+$name:refs/wharfinger/in"
    in=yes
  fi
  if [ $# != 0 ]; then
    from_origin "$@" || {
      [ $? != 124 ] || exit 98
      # If the mirror is damaged, a new one gets the objects.
      ! sound || exit 94
      make
      [ -z "$in" ] || from_origin origin "+$name:refs/wharfinger/in" || exit 94
    }
    # The ref may have moved since the listing. The later commit counts.
    [ -z "$in" ] || oid=$(m rev-parse -q --verify refs/wharfinger/in) || lost
  fi
  if ! have; then
    from_origin origin "+$oid:refs/wharfinger/in" || {
      [ $? != 124 ] || exit 98
      sound || exit 95
      exit 96
    }
  fi
  have || lost
fi
have || {
  echo "the mirror does not have $oid" >&2
  exit 94
}
printf 'mirror\t%s\n' "$(head -c 100 "$X/made" 2>/dev/null)"
# The ref keeps the commit over the next repack, and lets the copy fetch it.
[ -z "$oid" ] || m update-ref "refs/wharfinger/want/$oid" "$oid" >&2 || exit 95
[ "$mode" != mirror ] || exit 0

# Other processes may fetch from here on; repacking waits.
flock -s -w "$clone_limit" 9 || exit 98
heads >"$M/heads"
flock -u 8
# Only a fetch can update the end of a shallow history.
here() {
  [ -z "$H" ] && [ "$mode" != anew ] && [ -n "$oid" ] && g rev-parse -q --verify "$oid^{commit}" >/dev/null 2>&1 &&
    g for-each-ref --format='%(objectname)%09refs/heads/%(refname:lstrip=3)' refs/remotes/origin 2>/dev/null | sort |
    cmp -s - "$M/heads"
}
if [ "$mode" = anew ]; then
  # Git would prefer a damaged object to the new one.
  for f in "$G"/objects/* "$G/refs/remotes/origin" "$G/packed-refs" "$G/shallow"; do remove "$f"; done
  mkdir -p "$G/objects/pack" || exit 95
fi
if ! here; then
  set -- "$X" '+refs/heads/*:refs/remotes/origin/*'
  [ -z "$oid" ] || set -- "$@" "+refs/wharfinger/want/$oid:refs/wharfinger/want"
  [ "$mode" != anew ] || set -- --refetch "$@"
  limit "$clone_limit" git --git-dir="$G" --work-tree="$T" fetch --quiet --force --prune --no-tags \
    --no-recurse-submodules --no-write-fetch-head ${H:+--depth="$H"} "$@" >&2 || {
    [ $? != 124 ] || exit 98
    exit 95
  }
fi
[ -n "$oid" ] || exit 0
[ -z "$tag" ] || g update-ref "$tag" "$oid" >&2 || exit 95
c=$(g rev-parse -q --verify "$oid^{commit}") || exit 99
printf 'commit\t%s\n' "$c"
