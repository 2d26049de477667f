# Starts a command in a process group of its own, and reports by a mark on standard error what became of it.
#
# Runs:      as text in $wf_w, after a `set --` with its arguments (remote.rs). A start under setsid runs $wf_w again.
# Arguments: the mark; "in" or "home"; the directory, for "in"; watch.sh, or empty for no watcher; how many variables
#            follow; the variables, each NAME=VALUE; the command and its arguments.
# Prints:    the mark and a word on standard error: "nodir", "noprog", or the target that kill.sh takes. Before the target, the
#            mark on standard output, where the command's own output begins.
# Exits:     as the command, which takes the place of this shell; 127 with "nodir" or "noprog".
#
# All names begin with wf_: a name that the host's environment has would be exported to the command.
# shellcheck shell=sh disable=SC2154
wf_m=$1 wf_d=$3 wf_a=$4 wf_n=$5
if [ "$2" = in ] && ! CDPATH='' cd -- "$wf_d" >/dev/null 2>&1; then
  printf '%snodir\n' "$wf_m" >&2
  exit 127
fi
shift 5

# The group is our own, or setsid makes one. Without setsid, or with a text that is too long for an argument, only the process
# itself can be killed.
wf_t=$$ wf_b=''
# Sets wf_l to the fields of a process's stat from the third on, and wf_s to the 22nd, when it began.
wf_stat() {
  { read -r wf_l <"/proc/$1/stat"; } 2>/dev/null || return 1
  wf_l=${wf_l##*) }
  wf_s=$wf_l wf_i=19
  while [ $wf_i -gt 0 ]; do
    wf_s=${wf_s#* }
    wf_i=$((wf_i - 1))
  done
  wf_s=${wf_s%% *}
}
if wf_stat $$; then
  wf_b=@$wf_s
  wf_l=${wf_l#* }
  wf_l=${wf_l#* }
  wf_l=${wf_l%% *}
  if [ "$wf_l" = $$ ]; then
    wf_t=-$$
  elif [ ${#wf_w} -lt 100000 ] && command -v setsid >/dev/null; then
    exec setsid /bin/sh -c "$wf_w"
  fi
fi

# Twice in the background, so that the watcher is no child of the command: some programs wait for all children. When the parent
# began is read here: it may be gone when the watcher begins.
if [ -n "$wf_a" ] && [ $wf_t = -$$ ] && wf_stat "$PPID" && command -v setsid >/dev/null; then
  (exec setsid /bin/sh -c "$wf_a" wharfinger-watch $$ "${wf_b#@}" "$PPID" "$wf_s" </dev/null >/dev/null 2>&1 &)
fi

while [ "$wf_n" -gt 0 ]; do
  export "${1?}"
  shift
  wf_n=$((wf_n - 1))
done
if ! command -v -- "$1" >/dev/null 2>&1; then
  printf '%snoprog\n' "$wf_m" >&2
  exit 127
fi
printf '%s\n' "$wf_m"
printf '%s%s\n' "$wf_m" "$wf_t$wf_b" >&2
exec "$@"
