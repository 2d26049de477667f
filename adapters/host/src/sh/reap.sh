# Ends what a lease left running. With a fence, takes the slot from the lease first, so that it starts nothing more.
#
# Follows:   cgroup.sh, processes.sh, fence.sh
# Arguments: the lease, its fence or empty, its token, its number (guard.sh).
# Prints:    how many processes were signalled; then what limits.sh prints.
# Changes:   removes the fence, the start of the lease and the note of its control groups; ends processes and removes the groups.
# Exits:     0; 3, processes outlive SIGKILL; 4, there is no usable /proc; 5, the fence cannot be removed; 6, a process cannot
#            be read and may be another live lease's; 7, a control group cannot be looked at; 113 with the fence's token on
#            standard error, if that is greater.
# shellcheck shell=sh
lease=$1 fence=$2 token=$3 number=$4
unset WHARFINGER_LEASE
# shellcheck disable=SC2034 # For processes.sh.
since='' rival='' over='' note='' limits='' ended=0 cg_count=0
if [ -n "$fence" ]; then
  compare "$fence" "$token"
  rm -f -- "$fence" || exit 5
  dir=${fence%/*} slot=${fence##*.} hosts=${fence%/*/*/*}
  over=$dir/over.$slot
  # A lease that is over is no rival to its neighbours, and its start is kept until its processes have ended.
  [ ! -f "$dir/since.$slot" ] || mv -f -- "$dir/since.$slot" "$over" || exit 5
  since_note "$over"
  if [ -n "$since" ]; then
    held_slots "$hosts"/*/copies/*/meta/host
    rival_notes "$hosts"/*/.wharfinger/since.* "$hosts"/*/copies/*/meta/since
  fi
fi
need_proc
if [ -n "$fence" ]; then
  note=$dir/cgroup.$slot
  limits=$(cg_report "$note")
  # First what cannot run away, then what did.
  cg_end "$fence"
fi

marked() {
  carrying "WHARFINGER_LEASE=$lease"
  limited "$number"
}
end_all
[ -z "$over" ] || rm -f -- "$over" "$note"
# shellcheck disable=SC2154
printf '%s\n%s' "$((ended + cg_count))" "${limits:+$limits$cg_newline}"
