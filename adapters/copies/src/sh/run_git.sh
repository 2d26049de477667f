# Runs git in the copy, without the remote.
#
# Arguments: those of git.
# Prints:    what git prints.
# Exits:     as git; 127 (prelude.sh).
have_git
exec git --git-dir="$G" --work-tree="$T" "$@"
