# Lands the commit of the copy on a branch of the remote: its HEAD, or with "changes" its tree. All work happens in a separate
# repository; the copy's configuration, hooks and index take no part.
#
# Follows:   credentials.sh, scratch.sh
# Arguments: 1 the remote's address; 2 the branch; 3 the landing's id; 4 words: squash, changes, dry; 5 the number of tries;
#            6 seconds to wait for locks; 7 the mirror; 8 the fence, or empty; 9 the lease's token; 10 the author's name; 11 the
#            author's address; 12 the message.
# Input:     credentials (credentials.sh).
# Prints:    a key, a tab and a value a line. One key is the result: landed, already, contained, would, conflict, unrelated,
#            missing, refused, denied, unreachable, raced, busy, nested, lost or cut. Others: tries, onto, count, from, file, left.
# Exits:     0, with a result; 93, 127 (prelude.sh).
url=$1 branch=$2 id=$3 words=" $4 " times=$5 patience=$6 X=$7 fence=$8 token=$9
shift 9
name=$1 email=$2 message=$3
have_git
for t in flock timeout; do
  command -v $t >/dev/null 2>&1 || {
    echo "$t is missing" >&2
    exit 127
  }
done
B=refs/heads/$branch
who='Wharfinger' where='wharfinger@localhost'
export GIT_COMMITTER_NAME="$who" GIT_COMMITTER_EMAIL="$where" GIT_AUTHOR_NAME="$who" GIT_AUTHOR_EMAIL="$where"

tell() { printf '%s\t%s\n' "$1" "$2"; }
has() { case $words in *" $1 "*) ;; *) return 1 ;; esac }
end() {
  tell "$@"
  exit 0
}
# Prints the text of another program in one line.
words_of() { head -c 2000 "$1" | tr '\n\t' '  '; }

# Checks that the lease still has the copy.
ours() {
  [ -n "$fence" ] || return 0
  now=
  { read -r now <"$fence"; } 2>/dev/null
  [ "$now" = "$token" ] || end lost "${now:-no lease}"
}

S=$D/meta/landing
ours
guard
far_end
# Locks: one landing at a time from a copy, and one to a branch from this host. They end with their process.
e=$({ mkdir -p -- "${X%/*}" && : >>"$D/meta/landing.lock" && : >>"$X.use"; } 2>&1) || say CANNOT_CREATE "$e"
lock=$X.land.$(printf '%s' "$B" | git hash-object --stdin)
exec 7>>"$D/meta/landing.lock" 8>>"$lock"
flock -w "$patience" 7 || {
  tell busy "another landing from this copy"
  exit 0
}
flock -w "$patience" 8 || {
  tell busy "another landing on $branch from this host"
  exit 0
}

# The commit of the copy. A holder can write the copy's configuration, so only the id is read under it. The objects are fetched
# from a repository with its own configuration.
head=$(g rev-parse -q --verify 'HEAD^{commit}' 2>/dev/null) || say HEAD_BROKEN "HEAD of $T names no commit"
case ${#head} in 64) format=sha256 ;; *) format=sha1 ;; esac
scratch "$format"
V=$S/view
e=$({ git init --quiet --bare --template= --initial-branch=none --object-format="$format" -- "$V" &&
  printf '%s\n' "$G/objects" >"$V/objects/info/alternates"; } 2>&1) || say CANNOT_CREATE "$e"
if [ -e "$G/shallow" ] && fit_shallow "$G/shallow"; then cp -- "$G/shallow" "$V/shallow"; fi
git --git-dir="$V" update-ref refs/heads/head "$head" 2>"$S/complaint" ||
  say OBJECTS_BROKEN "commit $head of $T: $(head -c 1000 "$S/complaint")"

# Sets $tip to the tip of the branch; empty if the remote has no such branch.
listing() {
  git ls-remote -- "$url" "$B" >"$S/listing" 2>"$S/complaint" </dev/null || return 1
  # The remote lists each ref whose name ends with this one (git-ls-remote(1)).
  tip=$(wanted=$B awk '{ at = index($0, "\t") } substr($0, at + 1) == ENVIRON["wanted"] { print substr($0, 1, at - 1); exit }' "$S/listing")
}
take_tip() {
  listing || end unreachable "$(words_of "$S/complaint")"
  [ -n "$tip" ] || end missing "$branch"
  s fetch --quiet --force --no-tags --no-recurse-submodules --no-write-fetch-head -- "$url" "+$B:refs/in/tip" \
    2>"$S/complaint" </dev/null || end unreachable "$(words_of "$S/complaint")"
  tip=$(s rev-parse -q --verify refs/in/tip) || end unreachable "$B came without its commit"
}

# The mirror on this host has most objects. The remote sends the others.
if [ -d "$X" ]; then
  exec 9>>"$X.use"
  flock -s -w 30 9 && s fetch --quiet --no-tags --no-recurse-submodules --no-write-fetch-head -- "$X" \
    '+refs/heads/*:refs/mirror/*' >/dev/null 2>&1 </dev/null
  exec 9>&-
fi
login
take_tip
if [ -f "$V/shallow" ]; then
  # The history of a shallow copy goes on in the remote.
  beyond() { s cat-file --batch-check <"$V/shallow" 2>/dev/null | grep ' missing$'; }
  if [ -n "$(beyond)" ]; then
    s fetch --quiet --force --no-tags --no-recurse-submodules --no-write-fetch-head -- "$url" '+refs/heads/*:refs/all/*' \
      2>"$S/complaint" </dev/null || end unreachable "$(words_of "$S/complaint")"
  fi
  gap=$(beyond | sed -n 's/ .*//;1p')
  [ -z "$gap" ] || end cut "$gap"
fi
s -c fetch.fsckObjects=true fetch --quiet --no-tags --no-recurse-submodules --no-write-fetch-head -- "$V" \
  '+refs/heads/head:refs/in/head' 2>"$S/complaint" </dev/null ||
  say OBJECTS_BROKEN "commit $head of $T: $(head -c 1000 "$S/complaint")"
remove "$V"

trailer() { printf '\nWharfinger-Landing: %s\n' "$id"; }
by_author() { GIT_AUTHOR_NAME=${name:-$who} GIT_AUTHOR_EMAIL=${email:-$where} s commit-tree "$@" 2>"$S/complaint"; }
unmade() { say LANDING_FAILED "$(head -c 1000 "$S/complaint")"; }

# Commits the changes of the build, with a separate index. A filter would be a program of the holder, so files with a filter stay as
# they are.
from=$head
if has changes; then
  export GIT_INDEX_FILE="$S/index"
  w() { git --git-dir="$S" --work-tree="$T" -c core.bare=false "$@"; }
  cd -P -- "$T" || say TREE_MISSING "$T cannot be entered"
  tab=$(printf '\t')
  w read-tree "$head" 2>"$S/complaint" || unmade
  # Files outside a partial tree are missing; that is no change.
  w ls-files -d | sed "s/^/$tab/" | cone out | cut -f2- | w update-index --skip-worktree --stdin 2>"$S/complaint" || unmade
  w ls-files -z -m -d -o --exclude-standard >"$S/changed" 2>"$S/complaint" || unmade
  nested=$(tr '\0\n' '\n?' <"$S/changed" | grep '/$' | head -n 1)
  [ -z "$nested" ] || end nested "$nested"
  # No remote may have the commit of a submodule.
  w ls-files -s -z | tr '\0\n' '\n\0' | sed -n "s/^160000 [0-9a-f]* [0-9]$tab//p" >"$S/stay"
  tr '\0\n' '\n\0' <"$S/changed" | sort -u | tr '\0\n' '\n\0' | w check-attr -z --stdin filter 2>"$S/complaint" |
    tr '\0\n' '\n\0' | while IFS= read -r path && IFS= read -r _ && IFS= read -r value; do
    case $value in unspecified | unset) ;; *) printf '%s\n' "$path" ;; esac
  done >"$S/filtered"
  sed -e "s/^/left$tab/" -e 200q "$S/filtered" | tr '\0' '?'
  cat "$S/filtered" >>"$S/stay"
  # The grep of busybox matches each line if the list of patterns is empty.
  not_staying() { if [ -s "$S/stay" ]; then grep -avxF -f "$S/stay"; else cat; fi; }
  tr '\0\n' '\n\0' <"$S/changed" | sort -u | not_staying | tr '\0\n' '\n\0' >"$S/taken"
  w update-index -z --add --remove --replace --stdin <"$S/taken" 2>"$S/complaint" || unmade
  tree=$(w write-tree 2>"$S/complaint") || unmade
  cd / || exit 1
  unset GIT_INDEX_FILE
  if [ "$tree" != "$(s rev-parse "$head^{tree}")" ]; then
    [ -n "$message" ] || message="Changes of a build"
    from=$({
      printf '%s\n' "$message"
      trailer
    } | by_author -p "$head" "$tree") || unmade
    # The commit has the message now.
    has squash || message=
  fi
fi

# Prints the message of a squashed commit.
squashed() {
  if [ -n "$message" ]; then
    printf '%s\n' "$message"
  elif [ "$(s rev-list --count "$tip..$from")" = 1 ]; then
    printf '%s\n' "$(s show -s --format=%B "$from")"
  else
    printf 'Land %s on %s\n\n' "$(s rev-parse --short "$from")" "$branch"
    s log --reverse --no-merges --format='* %s' "$tip..$from"
  fi
}

try=0
while :; do
  try=$((try + 1))
  [ "$try" = 1 ] || take_tip
  # An earlier call may have landed it, and its answer may be lost. Later landings have that commit in their history.
  base=$(s merge-base "$head" "$tip") || end unrelated "$tip"
  s log --format='%H %(trailers:key=Wharfinger-Landing,valueonly,unfold,separator=%x2C)' "$base..$tip" >"$S/history" ||
    say LANDING_FAILED "the history of $branch cannot be read"
  while read -r commit value; do
    case ",$value," in *",$id,"*) end already "$commit" ;; esac
  done <"$S/history"
  ! within "$from" "$tip" || end contained "$tip"
  [ "$try" -le "$times" ] || end raced "$times"

  if has squash || ! within "$tip" "$from" || { [ -n "$message" ] && ! has squash; }; then
    merge_trees "$tip" "$from" || {
      tell conflict "$tip"
      tell from "$from"
      tell_files
      exit 0
    }
    if has squash; then
      [ "$tree" != "$(s rev-parse "$tip^{tree}")" ] || end contained "$tip"
      if [ -z "$name" ]; then
        name=$(s show -s --format=%an "$from") email=$(s show -s --format=%ae "$from")
      fi
      commit=$({
        squashed
        trailer
      } | by_author -p "$tip" "$tree") || unmade
    else
      commit=$({
        printf '%s\n' "${message:-Merge $(s rev-parse --short "$from") into $branch}"
        trailer
      } |
        by_author -p "$tip" -p "$from" "$tree") || unmade
    fi
  else
    commit=$from
  fi

  ours
  set -- --porcelain --no-verify --no-recurse-submodules --no-follow-tags "--force-with-lease=$B:$tip"
  ! has dry || set -- "$@" --dry-run
  if s push "$@" -- "$url" "$commit:$B" >"$S/pushed" 2>"$S/answer" </dev/null; then
    tell tries "$try"
    tell onto "$tip"
    tell count "$(s rev-list --count "$tip..$commit")"
    ! has dry || end would "$commit"
    end landed "$commit"
  fi
  # The branch has moved, or the remote refuses the push. A new listing decides, not the text of the remote.
  former=$tip
  listing || end unreachable "$(words_of "$S/complaint")"
  if [ "$tip" = "$former" ]; then
    # A line that begins with "!" is the remote's answer for the branch (git-push(1), "--porcelain").
    cat "$S/pushed" >>"$S/answer"
    if grep -q '^!' "$S/pushed"; then end refused "$(words_of "$S/answer")"; fi
    end denied "$(words_of "$S/answer")"
  fi
done
