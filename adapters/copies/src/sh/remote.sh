# Git that asks a remote: $1 is "tree" (in the copy) or "none" (in no repository); $2 is "local" if the repository lies on
# this host, else empty; the rest are arguments of git.
have_git
where=$1 local=$2
shift 2
if [ -n "$local" ]; then
  # The far end of a local transport reads no `-c`: only a file can tell it that another user's repository is meant.
  rm -rf -- "$M/gitconfig"
  printf '[safe]\n\tdirectory = *\n' >"$M/gitconfig" 2>/dev/null &&
    export GIT_CONFIG_GLOBAL="$M/gitconfig"
fi
case $where in
tree) exec git --git-dir="$G" --work-tree="$T" "$@" ;;
# A repository that is not there: no configuration of any directory above is read.
*) export GIT_DIR="$M/none" && cd / && exec git "$@" ;;
esac
