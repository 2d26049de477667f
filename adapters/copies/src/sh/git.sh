# Git in the copy, on this host alone; the arguments are git's.
have_git
exec git --git-dir="$G" --work-tree="$T" "$@"
