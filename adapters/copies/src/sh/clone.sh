# Clones into $1 (below the copy's directory) from $2; $3 is "local" if the repository lies on this host. Prints the
# object format. Objects are never shared with the repository: the holder could spoil them there.
have_git
new=$D/$1 url=$2 local=$3
if [ -n "$local" ]; then
  rm -rf -- "$M/gitconfig"
  printf '[safe]\n\tdirectory = *\n' >"$M/gitconfig" 2>/dev/null &&
    export GIT_CONFIG_GLOBAL="$M/gitconfig"
fi
cd / || exit 1
git clone --quiet --no-checkout --no-local --no-tags --template= --origin origin -- "$url" "$new" >&2 || exit 1
git --git-dir="$new/.git" rev-parse --show-object-format
