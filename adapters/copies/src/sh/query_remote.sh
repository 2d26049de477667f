# Lists the refs of the remote in the background. list_refs.sh waits for the answer. The copy takes no part, so a failure is that of
# the remote.
#
# Follows:   credentials.sh
# Arguments: the remote's address; full names of refs, one a line; the limit in seconds. It shifts them away.
# Input:     credentials (credentials.sh).
# Sets:      $asking, the process; $names; $normal, empty; file descriptor 4, the answer.
# Exits:     93, 127 (prelude.sh).
have_git
command -v timeout >/dev/null 2>&1 || {
  echo "timeout is missing" >&2
  exit 127
}
drop "$M/listing" "$M/listing.why" "$M/heads" "$M/gitconfig"
far_end
login
url=$1 names=$2
foreground=
if timeout --foreground 1 true 2>/dev/null; then foreground=--foreground; fi
# The file has no name while it is written: a build could change the listing, and the request would be blamed.
# shellcheck disable=SC2094
: >"$M/listing" && exec 5>"$M/listing" 4<"$M/listing" && rm -f -- "$M/listing" || say CANNOT_CREATE "cannot write below $M"
# Each line of $names is one argument, and no pattern of file names.
# shellcheck disable=SC2086
(GIT_DIR=$M/none && export GIT_DIR && cd / && set -f && IFS='
' && exec timeout $foreground -k 10 "$3" \
  git ls-remote --symref -- "$url" HEAD 'refs/heads/*' $names) >&5 2>"$M/listing.why" </dev/null 4<&- &
asking=$!
normal=
# A script that exits before the answer does not wait for it.
# shellcheck disable=SC2317
stop_asking() { [ -z "$asking" ] || kill "$asking" 2>/dev/null || :; }
at_end stop_asking
shift 3
