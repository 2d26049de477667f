# Makes a separate repository in $S. Its objects come over a transport, which hashes each: a holder can forge objects in the copy
# and in the mirror. A library in front of another script's text.
#
# Expects:   $S, its directory. The script that made it removes it when it exits; the next one does after a kill.
# Exits:     93 (CANNOT_CREATE, GIT_TOO_OLD, MERGE_FAILED).

drop_scratch() { rm -rf -- "$S"; }
# Makes the repository. $1: the object format.
scratch() {
  remove "$S"
  at_end drop_scratch
  e=$(git init --quiet --bare --template= --initial-branch=none --object-format="$1" -- "$S" 2>&1) ||
    say CANNOT_CREATE "$e"
  # No attribute takes part in a merge. Some versions of git would read those of a commit here.
  nothing=$(s hash-object -t tree /dev/null) || say CANNOT_CREATE "cannot use $S"
}

s() { git --git-dir="$S" "$@"; }

# The settings of a merge do not depend on the defaults of the host's git.
conf merge.renames true
conf merge.renameLimit 7000
conf merge.directoryRenames conflict
conf merge.renormalize false
conf merge.conflictStyle merge
conf rerere.enabled false

# Merges $2 into $1 without a working tree, and sets $tree to the tree of the result. Returns 1 after a conflict, with the files
# in conflict in $S/files, one a line. Reports a state after another error.
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
      say GIT_TOO_OLD "git is $v; merges need 2.38 or newer"
    fi
    say MERGE_FAILED "git cannot merge $1 and $2: $(head -c 1000 "$S/complaint")"
    ;;
  esac
}

# Whether the two commits have history in common. Git refuses a merge of others.
related() { s merge-base "$1" "$2" >/dev/null 2>&1; }

# Whether $2 has $1 in its history.
within() { s merge-base --is-ancestor "$1" "$2" 2>/dev/null; }

# Prints the first 200 files in conflict.
tell_files() { awk 'NR <= 200 { print "file\t" $0 }' "$S/files"; }
