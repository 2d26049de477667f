# The submodules that the commit in the tree has, as proved: "id path" for each, then an empty record; then "none", "broken" or
# "read", and what .gitmodules says. All end with a NUL. Read from the proved file, and not from the store, which may lie; and
# only if it is a file: a link's end is not the commit's.
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
