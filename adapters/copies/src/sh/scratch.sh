# Makes a repository of our own in $S, whose objects all come over a transport and are hashed on their way. A holder can forge
# objects in the copy and in the mirror. A library in front of another script's text.
#
# Expects:   $S, its directory. It goes with the script that made it, or with the next one.
# Exits:     93 (CANNOT_CREATE, GIT_TOO_OLD, MERGE_FAILED).

drop_scratch() { rm -rf -- "$S"; }
# $1: the object format.
scratch() {
  remove "$S"
  at_end drop_scratch
  e=$(git init --quiet --bare --template= --initial-branch=none --object-format="$1" -- "$S" 2>&1) ||
    say CANNOT_CREATE "$e"
  # No attribute takes part in a merge, whichever version of git it is: some read those of a commit here, some do not.
  nothing=$(s hash-object -t tree /dev/null) || say CANNOT_CREATE "cannot use $S"
}

s() { git --git-dir="$S" "$@"; }

# The same on each host, whatever the defaults of its git.
conf merge.renames true
conf merge.renameLimit 7000
conf merge.directoryRenames conflict
conf merge.renormalize false
conf merge.conflictStyle merge
conf rerere.enabled false

# Merges $2 into $1 without a working tree, and leaves the result's tree in `tree`. Otherwise ends with 1 and the files in
# conflict in $S/files, one a line; or says what is wrong.
merge_trees() {
  GIT_ATTR_SOURCE=$nothing s merge-tree --write-tree -z --name-only --no-messages "$1" "$2" \
    >"$S/merged" 2>"$S/complaint" </dev/null
  rc=$?
  tr '\0\n' '\n?' <"$S/merged" >"$S/lines"
  case $rc in
  0) read -r tree <"$S/lines" ;;
  1)
    sed -e 1d -e '/^$/,$d' "$S/lines" >"$S/files"
    return 1
    ;;
  *)
    v=$(git version)
    v=${v#git version }
    minor=${v#*.}
    minor=${minor%%.*}
    if [ "${v%%.*}" -lt 2 ] || { [ "${v%%.*}" = 2 ] && [ "$minor" -lt 38 ]; } 2>/dev/null; then
      say GIT_TOO_OLD "git is $v, and merges need 2.38 or newer"
    fi
    say MERGE_FAILED "$1 and $2: $(head -c 1000 "$S/complaint")"
    ;;
  esac
}

# Whether they have any history in common; a merge without is refused by git, and by us with a name.
related() { s merge-base "$1" "$2" >/dev/null 2>&1; }

# Whether $2 has all of $1 already.
within() { s merge-base --is-ancestor "$1" "$2" 2>/dev/null; }

# The first 200 files, for people and programs.
tell_files() { awk 'NR <= 200 { print "file\t" $0 }' "$S/files"; }
