# Removes the copy and all that is ours of it.
if [ -L "$D" ]; then rm -f -- "$D"; fi
[ -e "$D" ] || exit 0
guard_mounts
remove "$D"
