# Proves files whose bytes git converts on the way into the tree: line ends, ident, encodings, large files. Many byte strings
# convert to one blob, so a hash over git's conversion is no proof for them. They are compared with what git writes into an
# empty directory by the commit's own attributes. A library in front of another script's text.
#
# Expects:   the tree is the current directory; the functions of rebuild.sh; lists of entries, "MODE ID<TAB>NAME" a line, with
#            names as git quotes them.
# Sets:      $converts, by `find_attributes`.
# Exits:     by `fail` of rebuild.sh; 93 (CHECKOUT_FAILED, CANNOT_CREATE).

# Sets $converts. "no": the commit has no attributes; "yes": it may have some; "all": the tree may have attributes that are not the
# commit's, so git's own comparison proves nothing. $1: not empty if the tree may have files that the commit does not have.
find_attributes() {
  converts=no
  [ -z "$(g ls-files -- .gitattributes '*/.gitattributes')" ] || converts=yes
  # Git takes a mark of the byte order at the beginning for no part of a file in the tree, and for a part of one in the index.
  if [ $converts = yes ] && g grep --cached -a -q -F -e "$(printf '\357\273\277')" -- .gitattributes '*/.gitattributes' 2>/dev/null; then
    converts=all
  fi
  [ -z "$1" ] || [ -z "$(g ls-files -o -- .gitattributes '*/.gitattributes' | sed -n 1p)" ] || converts=all
}

# Prints the entries in the tree; with arguments those that match these patterns.
entries() { g ls-files -s "$@" | sed -n "s/^\([0-7]* [0-9a-f]*\) 0$tab/\1$tab/p" | cone in; }

# Prints "VALUES ENTRY" for the regular files in the list $1: the six attributes that decide on conversions.
values() {
  grep '^100' "$1" >"$M/regular"
  cut -f2- "$M/regular" | g check-attr --cached --stdin text crlf eol ident working-tree-encoding filter |
    list=$M/regular awk '
      {
        value = $0
        sub(/^.*: /, "", value)
        all = all (all == "" ? "" : ",") value
        if (NR % 6 == 0) {
          getline entry < ENVIRON["list"]
          print all " " entry
          all = ""
        }
      }'
  rm -f -- "$M/regular"
}

# Prints "CLASS ENTRY" for the entries in the list $1 that git converts. "raw": the file has the blob's bytes; "made": the bytes
# that git makes of them; "large": content that git-lfs stores elsewhere. $2: as $converts.
classes() {
  values "$1" | large=$L all=$2 awk '
    {
      split($1, v, ",")
      entry = substr($0, length($1) + 2)
      given = ENVIRON["all"] == "all"
      for (i = 1; i <= 5; i++) if (v[i] != "unspecified") given = 1
      if (v[6] == "lfs" && ENVIRON["large"] != "") print "large " entry
      else if (v[3] == "crlf" || v[4] == "set" || (v[5] != "unspecified" && v[5] != "unset")) print "made " entry
      else if (given) print "raw " entry
    }'
}

# Prints the lines of standard input that are no line of the file $1.
not_in() { list=$1 awk 'BEGIN { while ((getline line < ENVIRON["list"]) > 0) seen[line] = 1 } !($0 in seen)'; }

# Prints "HASH ENTRY" for the entries in the list $1: the hash of the file's bytes, or nothing if it cannot be read. $2: the
# directory of the files.
hashes() {
  (cd -- "$2" && cut -f2- "$1" | git --git-dir="$G" hash-object --no-filters --stdin-paths 2>/dev/null) | paste -d ' ' - "$1"
}

# Writes the entries in the list $1 below meta/fresh, as a new clone has them.
write_fresh() {
  remove "$M/fresh"
  mkdir -- "$M/fresh" || say CANNOT_CREATE "cannot write below $M"
  e=$(cd -- "$M/fresh" && cut -f2- "$1" |
    git --git-dir="$G" --work-tree="$M/fresh" checkout-index -f -q --stdin 2>&1) ||
    say CHECKOUT_FAILED "$(printf '%s' "$e" | head -c 1000)"
}

# Whether the stored objects that the entries in the list $1 name are what their names say: a pack of them is hashed anew.
genuine() {
  rm -rf -- "$M"/proof.*
  cut -f1 "$1" | sed 's/^[0-7]* //' | sort -u >"$M/proof.want"
  g pack-objects --stdout -q --window=0 <"$M/proof.want" >"$M/proof.pack" 2>/dev/null &&
    g index-pack -o "$M/proof.idx" "$M/proof.pack" >/dev/null 2>&1 &&
    g show-index <"$M/proof.idx" | cut -d ' ' -f2 | sort -u | cmp -s - "$M/proof.want"
  rc=$?
  rm -rf -- "$M"/proof.*
  return $rc
}

# Proves the files of the classes raw and made in meta/converted, and writes those that differ again: meta/changes and $written
# have them then.
prove_converted() {
  sed -n 's/^raw //p' "$M/converted" >"$M/raw"
  sed -n 's/^made //p' "$M/converted" >"$M/made"
  sed "s/^\([0-7]*\) \([0-9a-f]*\)$tab/\2 \1 \2$tab/" "$M/raw" >"$M/right"
  if [ -s "$M/made" ]; then
    genuine "$M/made" || fail "a stored blob of $want is forged or missing"
    write_fresh "$M/made"
    hashes "$M/made" "$M/fresh" >>"$M/right"
  fi
  cat "$M/raw" "$M/made" >"$M/both"
  hashes "$M/both" . >"$M/found"
  not_in "$M/found" <"$M/right" >"$M/wrong"
  if [ -s "$M/wrong" ]; then
    sed 's/^[0-9a-f]* //' "$M/wrong" >"$M/both"
    write_fresh "$M/both"
    hashes "$M/both" "$M/fresh" | cmp -s - "$M/wrong" || fail "a stored blob of $want is forged or missing"
    # shellcheck disable=SC2016
    e=$(names <"$M/both" | xargs -0 sh -c 'from=$1
      shift
      for p; do
        [ ! -f "$from/$p" ] || mv -f -- "$from/$p" "$p" || exit 1
      done' sh "$M/fresh" 2>&1) || say CHECKOUT_FAILED "$(printf '%s' "$e" | head -c 1000)"
    hashes "$M/both" . | cmp -s - "$M/wrong" || fail "files differ from the commit: $(cut -f2- "$M/both" | head -c 1000)"
    written=$((written + $(wc -l <"$M/both")))
    cat "$M/both" >>"$M/changes"
  fi
  remove "$M/fresh"
  rm -f -- "$M/raw" "$M/made" "$M/right" "$M/both" "$M/found" "$M/wrong"
}

# Proves the files .gitattributes, by which git looks at all others.
prove_attributes() {
  # Git writes the entries that are missing or no files, and removes other files in the way.
  g diff-files --raw --no-abbrev --no-renames -- .gitattributes '*/.gitattributes' |
    awk -F "$tab" '{ split($1, f, " "); if (f[1] != ":" f[2] || f[5] != "M") print }' | left_side | cut -f2- |
    g checkout-index -f -q --stdin 2>/dev/null || fail "the tree cannot be read"
  entries -- .gitattributes '*/.gitattributes' >"$M/entries"
  classes "$M/entries" all >"$M/converted"
  prove_converted
}

# Whether the large file with the entry $1 is right: by the hash that its blob says, or as the blob's own bytes, if that is no
# pointer. The blob's form does not matter: many are not as git-lfs writes them.
right_large() {
  id=${1%%"$tab"*}
  id=${id#* }
  # The names that git quotes are left to those who compare git's hash.
  case $1 in *"$tab\""*) return 1 ;; esac
  p=./${1#*"$tab"}
  [ -f "$p" ] && [ ! -L "$p" ] || return 1
  [ "$(g cat-file blob "$id" 2>/dev/null | g hash-object --no-filters --stdin 2>/dev/null)" = "$id" ] || return 1
  o=$(g cat-file blob "$id" | head -c 1024 | tr -d '\r\0' | awk '
    NR == 1 && !/^version [a-z]*:\/\// { exit }
    /^oid sha256:[0-9a-f]+$/ { print substr($0, 12); exit }')
  if [ -n "$o" ]; then
    [ "$(sha256sum <"$p" | cut -d ' ' -f1)" = "$o" ]
  else
    [ "$(g hash-object --no-filters -- "$p" 2>/dev/null)" = "$id" ]
  fi
}

# Takes out of meta/zero what a difference in git's look does not make wrong: files that prove_converted proves or has proved, and
# large files that are right. $1: the output of diff-files for these entries.
spare_converted() {
  awk -F "$tab" '{ split($1, f, " "); if (f[1] == ":" f[2] && f[5] == "M") print }' "$1" | left_side >"$M/entries"
  classes "$M/entries" "$converts" >"$M/converted"
  sed -n -e 's/^raw //p' -e 's/^made //p' "$M/converted" >"$M/spared"
  sed -n 's/^large //p' "$M/converted" | while IFS= read -r line; do
    ! right_large "$line" || printf '%s\n' "$line"
  done >>"$M/spared"
  not_in "$M/spared" <"$M/zero" >"$M/entries"
  mv -f -- "$M/entries" "$M/zero"
  rm -f -- "$M/spared" "$M/converted"
}
