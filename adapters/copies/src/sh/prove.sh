# Proves that the tree is the wanted commit: each hash is computed again, from the commit's name down to each file. Files that
# differ are written again.
#
# Follows:   convert.sh, rebuild.sh
# Arguments: those of rebuild.sh.
# Prints:    a key, a tab and a value a line: "was", the former commit, or empty; "written", the number of files written; "trust",
#            what is known of the index, if that is asked for and certain.
# Exits:     0; 93 (prelude.sh).

# Whether the index is what the commit lists, though git would write its listings otherwise: old histories have other modes, and
# empty directories. Each listing is hashed as it is stored.
listed() {
  {
    printf '040000 %s\t.\n' "$tree"
    g ls-tree -r -d --full-tree "$tree" 2>/dev/null | sed -n 's/^040000 tree /040000 /p'
  } >"$M/entries"
  genuine "$M/entries" || return 1
  g ls-tree -r --full-tree "$tree" | sed 's/^\([0-7]*\) [a-z]* /\1 /' | sort >"$M/entries"
  g ls-files -s | sed "s/^\([0-7]* [0-9a-f]*\) 0$tab/\1$tab/" | sort | cmp -s - "$M/entries"
}
head=$(g rev-parse -q --verify HEAD 2>/dev/null) || fail "HEAD names nothing"
[ "$head" = "$want" ] || fail "HEAD is $head"
if [ "$known" != yes ] || [ "$was" != "$tree" ]; then
  t=$(g write-tree --missing-ok 2>/dev/null)
  [ "$t" = "$tree" ] || listed || fail "a stored directory listing of $want is forged"
fi

if [ -n "$W" ]; then
  # The entries that the index marks as absent are those that the pool does not have, and they are absent.
  astray() {
    g ls-files -t | sed "s/ /$tab/" >"$M/tags"
    grep '^S' "$M/tags" | cone in
    grep -v '^S' "$M/tags" | cone out
  }
  if [ -n "$(astray | sed -n 1p)" ]; then
    first=dirty
    # Git removes none that was changed, as all look whose time stamps are forgotten; but what a commit does not have it does, by
    # an index of these alone. It does not go through links, as a removal by name would.
    rm -rf -- "$M/outer.index" "$M/outer.index.lock"
    e=$({ g ls-files -s | cone out | GIT_INDEX_FILE=$M/outer.index g update-index --index-info &&
      GIT_INDEX_FILE=$M/outer.index g -c core.sparseCheckout=false read-tree --reset -u "$(g hash-object -t tree -w --stdin </dev/null)"; } 2>&1) ||
      say CHECKOUT_FAILED "$(printf '%s' "$e" | head -c 1000)"
    rm -f -- "$M/outer.index"
    # With two trees it leaves alone what both have, but for whether it is to be there.
    e=$(g read-tree --reset -u "$tree" "$tree" 2>&1) || say CHECKOUT_FAILED "$(printf '%s' "$e" | head -c 1000)"
    more=$(astray | head -c 1000)
    [ -z "$more" ] || fail "what is there is not what sparse says: $more"
  fi
  # Git removes the directories that it empties itself.
  outer | sort -r | tr '\n' '\0' | xargs -0 rmdir 2>/dev/null
  rm -f -- "$M/tags"
fi

# Files that are right keep their times, also if a build wrote them. Only files that differ are written again.
find_attributes "$([ "$policy" = clean ] && [ $# = 0 ] || echo kept)"
refresh() { stale=$(g update-index --refresh 2>&1 | tail -c 1000); }
stale=
if [ -z "$comparing" ]; then
  [ "$converts" = no ] || prove_attributes
  refresh
elif ! wait "$comparing"; then
  fail "the tree cannot be read"
elif [ -s "$M/dirty" ]; then
  # These files were changed after they were hashed: they are looked at as the others were then.
  left_side <"$M/dirty" | cone in >"$M/zero"
  cat "$M/zero" >>"$M/changes"
  names <"$M/zero" | remove_odd
  [ "$converts" = no ] || prove_attributes
  refresh
fi
different() { g diff-files --raw --no-abbrev --no-renames --ignore-submodules=none >"$M/dirty" || fail "the tree cannot be read"; }
if [ -n "$stale" ]; then
  different
  left_side <"$M/dirty" >"$M/zero"
  [ "$converts" = no ] || spare_converted "$M/dirty"
  if [ -s "$M/zero" ]; then
    e=$(cut -f2- "$M/zero" | g checkout-index -f -q --stdin 2>&1) || say CHECKOUT_FAILED "$(printf '%s' "$e" | head -c 1000)"
    g update-index --index-info <"$M/zero" || say CHECKOUT_FAILED "the index cannot be written"
    written=$((written + $(wc -l <"$M/zero")))
    cat "$M/zero" >>"$M/changes"
    first=dirty
    refresh
  fi
fi
if [ "$converts" != no ]; then
  case $known in
  yes) sort -u "$M/changes" >"$M/entries" ;;
  *) entries >"$M/entries" ;;
  esac
  classes "$M/entries" "$converts" >"$M/converted"
  n=$written
  prove_converted
  [ "$n" = "$written" ] || refresh
fi
if [ -n "$stale" ]; then
  # A file that git takes for changed, though it is right, is so in a new clone too.
  different
  left_side <"$M/dirty" >"$M/zero"
  [ "$converts" = no ] || spare_converted "$M/dirty"
  [ ! -s "$M/zero" ] || fail "files differ from the commit: $(cut -f2- "$M/zero" | head -c 1000)"
fi
if [ "$policy" = clean ] && { [ "$first" != '=0' ] || [ -n "$odd" ] || [ "$links" != 0 ]; }; then
  # It found something, so it has not said yet that nothing is left.
  sweep "$@"
  [ "$out" = '=0' ] || fail "files are there that the commit does not have: $(printf '%s\n' "$out" | removed)"
  more=$(find . -path ./.git -prune -o ! -type f ! -type d ! -type l -print 2>&1 | head -c 1000)
  [ -z "$more" ] || fail "files are there that the commit does not have: $more"
fi
# Prints the files of meta/changes with a mode that no commit gives them. A few are looked at by one process.
odd_modes() {
  set --
  few=yes
  while [ -n "$few" ] && IFS= read -r line; do
    case $line in *"$tab\""*) few= ;; esac
    set -- "$@" "./${line#*"$tab"}"
    [ $# -lt 200 ] || few=
  done <"$M/changes"
  if [ -n "$few" ]; then
    find "$@" -prune -type f ! -perm 644 ! -perm 755 -print 2>&1
  else
    names <"$M/changes" | xargs -0 sh -c 'find "$@" -prune -type f ! -perm 644 ! -perm 755 -print' sh 2>&1
  fi
}
# Files in a directory with a default ACL get its modes.
if [ "$policy" = clean ]; then
  more=
  if [ -z "$comparing" ]; then
    [ $# != 0 ] || more=$(find . -path ./.git -prune -o -type f ! -perm 644 ! -perm 755 -print 2>&1 | head -c 1000)
  elif [ -s "$M/changes" ]; then
    more=$(odd_modes | head -c 1000)
  fi
  [ -z "$more" ] || fail "files have modes that the commit does not give them: $more"
fi
printf 'was\t%s\nwritten\t%s\n' "$at" "$written"
# Objects that a holder made are newer than this.
if [ "$save" != trust ]; then
  e=$({ printf '%s\n' "$want" >"$M/handed.new" && mv -f -- "$M/handed.new" "$M/handed"; } 2>&1) || say CANNOT_CREATE "$e"
fi
if [ -n "$note" ]; then
  # A build may have put a link in their place, to a file that has been proved.
  rm -rf -- "$D/meta/lease" "$D/meta/lease.new"
  e=$({ (umask 077 && printf '%s' "$note" >"$D/meta/lease.new") && mv -f -- "$D/meta/lease.new" "$D/meta/lease"; } 2>&1) ||
    say CANNOT_CREATE "$e"
fi

# A later change has a later ctime, in whole seconds. Files that changed since shortly before the hashing began are hashed again.
# Where they cannot be found, or are more than 500, nothing is trusted.
trusted() {
  [ "$save" = trust ] && [ -n "$started" ] || return 0
  find . -path ./.git -prune -o ! -type d -newerct "@$((started - 2))" -print0 >"$M/changes" 2>/dev/null || return 0
  if [ -s "$M/changes" ]; then
    [ "$(tr -cd '\0' <"$M/changes" | wc -c)" -le 500 ] || return 0
    GIT_LITERAL_PATHSPECS=1 xargs -0 git --git-dir="$G" --work-tree="$T" ls-files -s -z -- <"$M/changes" |
      g update-index -z --index-info || return 0
    g write-tree --missing-ok >/dev/null 2>&1 || return 0
  fi
  d=$(sha256sum <"$G/index") || return 0
  printf 'trust\t%s %s %s %s %s %s\n' "${d%% *}" "$tree" "$want" "$links" "$boot" "$cone"
}
# Removes the objects that the former holder made. A walk over the history finds the others, so it is done only if there are any.
forget_objects() {
  [ "$save" = trust ] && [ -f "$M/handed" ] && [ ! -L "$M/handed" ] || return 0
  [ -n "$(find "$G/objects" -type f -newer "$M/handed" 2>/dev/null | sed -n 1p)" ] || return 0
  if [ -n "$(find "$G/objects/pack" -type f -newer "$M/handed" 2>/dev/null | sed -n 1p)" ]; then g repack -a -d -q 2>/dev/null; fi
  g prune --expire=now 2>/dev/null
}
forget_objects
trusted
exit 0
