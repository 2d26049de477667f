# Gives back the room that the checked-out files take; prepare writes them again.
guard
cd -P -- "$T" || say TREE_MISSING "$T cannot be entered"
unlock "$T"
find . ! -name . -prune ! -name .git -exec rm -rf -- {} +
rm -f -- "$G/index"
find "$G/objects" -name 'tmp_*' -exec rm -f -- {} +
