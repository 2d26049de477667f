# Removes all checked-out files to free disk space. The next prepare writes them again.
#
# Arguments: none.
# Exits:     0; 93 (prelude.sh).
guard
cd -P -- "$T" || say TREE_MISSING "$T cannot be entered"
unlock "$T"
find . ! -name . -prune ! -name .git -exec rm -rf -- {} +
rm -f -- "$G/index"
find "$G/objects" -name 'tmp_*' -exec rm -f -- {} +
