# Gives a slot to a lease: makes its control groups, notes when the lease began, then writes its token into the fence.
#
# Follows:   cgroup.sh, fence.sh
# Arguments: the fence, the token, the lease, the lease's number (guard.sh); "yes" if there must be a control group; the limits of
#            memory, cpu and pids (cgroup.sh), each empty for none.
# Changes:   writes the fence, the start of the lease and the notes of lease and control groups; makes the groups; ends what an
#            earlier lease left in them.
# Exits:     0; 113 with the fence's token on standard error, if that is greater; 1, 3 (cgroup.sh), 7 (there is no group, or a
#            limit cannot be set) with the reason on standard error.
# shellcheck shell=sh
fence=$1 token=$2 lease=$3 number=$4 must=${5-} memory=${6-} cpu=${7-} pids=${8-}
umask 022
compare "$fence" "$token"
slot=${fence##*.} dir=${fence%/*}

# Beside the owner's mark, for the sweep of a resource that was given up (sweep.sh).
beside=${fence%/.wharfinger/*}.owner
if [ -d "$beside" ]; then
  note=$beside/lease.$slot
  printf '%s %s\n' "$lease" "$number" >"$note.new" && mv -f -- "$note.new" "$note" || exit 1
fi
mkdir -p -- "$dir" || exit 1

# A repetition for the same token leaves what runs alone.
note=$dir/cgroup.$slot had=''
if [ -f "$note" ] && [ ! -L "$note" ]; then { read -r _ had <"$note"; } 2>/dev/null; fi
[ "$had" = "$token" ] || cg_end "$fence"
rm -rf -- "$note" || exit 1
if ! cg_make "$fence" "$token" "${must:-no}" "$memory" "$cpu" "$pids"; then
  if [ -n "$must$memory$cpu$pids" ]; then
    # shellcheck disable=SC2154
    printf '%s\n' "$cg_fault" >&2
    exit 7
  fi
fi

note_start "$dir/since.$slot" "$token" "$lease" && write_token "$fence" "$token" || exit 1
