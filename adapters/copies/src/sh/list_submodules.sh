# Prints the submodules of the commit in the tree. They come from the proved index and the proved .gitmodules, not from the
# object store.
#
# Arguments: none.
# Prints:    records that end with NUL: "ID PATH" for each submodule; an empty one; then "none" (no .gitmodules), "broken" (git
#            cannot read it), or "read" and the output of `git config --list -z`.
# Exits:     0; 93, 127 (prelude.sh).
guard
have_git
g ls-files -s -z | tr '\0\n' '\n\0' | sed -n 's/^160000 \([0-9a-f]*\) 0.\(.*\)/\1 \2/p' | tr '\0\n' '\n\0'
printf '\0'
case $(g ls-files -s -- .gitmodules) in
100*) ;;
*)
  printf 'none\0'
  exit 0
  ;;
esac
if ! git config --file "$T/.gitmodules" --no-includes -z --list >/dev/null 2>&1; then
  printf 'broken\0'
  exit 0
fi
printf 'read\0'
git config --file "$T/.gitmodules" --no-includes -z --list
