# Prints what is announced on a host, a line whenever it changes. Ends with its connection.
#
# Arguments: the drop file, systemd's file of a scheduled shutdown, a command or empty, seconds between its runs, the work
#            directory.
# Prints:    SOURCE TAB CLOCK TAB LINE: SOURCE is file, scheduled or command; CLOCK is the host's, in seconds; LINE is what is
#            announced there now, or empty. An empty line every 30 seconds is a sign of life.
# Exits:     0, when the sshd of the connection is gone.
#
# The command is the operator's own text from the configuration, which is meant to run here; no other text is run.
# Something that is gone must be so at two looks in a row: a writer empties a file first. The end of the sshd shows by
# the parent of this shell, or where there is no /proc, or a shell in between, by a failing write.
# shellcheck shell=sh
file=$1 scheduled=$2 command=$3 every=$4 work=$5
parent=$PPID
newline='
'
say() { printf '%s\t%s\t%s\n' "$1" "$(date +%s)" "$2" || exit; }
attended() {
  { read -r stat <"/proc/$$/stat"; } 2>/dev/null || return 0
  # shellcheck disable=SC2086 # Numbers.
  set -- ${stat##*) }
  [ "$2" = "$parent" ]
}
if [ -n "$command" ]; then
  (
    limit=
    command -v timeout >/dev/null 2>&1 && limit='timeout 10'
    was=-
    while kill -s 0 $$ 2>/dev/null && attended; do
      if now=$($limit /bin/sh -c "$command" </dev/null 2>/dev/null); then
        now=${now%%"$newline"*}
        [ "$now" = "$was" ] || {
          was=$now
          say command "$now"
        }
      fi
      sleep "$every" || exit
    done
  ) &
fi
# A span counts from when it was written, also for a broker that reads it later.
dated() {
  set -f
  # shellcheck disable=SC2086
  set -- $1
  word=${1-} when=${2-}
  case $when in +*) ;; *) return 0 ;; esac
  case ${when#+} in '' | *[!0-9]*) return 0 ;; esac
  [ ${#when} -le 10 ] && since=$(date -r "$file" +%s 2>/dev/null) || return 0
  shift 2
  now="$word $((since + ${when#+})) $*"
}
# systemd-tmpfiles leaves a directory alone that has a BSD lock, with all that is in it. The scratch directory of an idle host is
# empty, and would be old enough to go.
locked=
command -v flock >/dev/null 2>&1 || locked=never
lock() {
  if [ -z "$locked" ] && { true <"$work/hosts"; } 2>/dev/null; then
    exec 9<"$work/hosts" && flock -s -n 9 2>/dev/null && locked=yes
  fi
}
was_file=- was_scheduled=- none_file='' none_scheduled='' beat=0
while attended; do
  lock
  now=
  [ -f "$file" ] && { IFS= read -r now <"$file"; } 2>/dev/null
  if [ "$now" = "$was_file" ]; then
    none_file=
  elif [ -n "$now$none_file" ] || [ "$was_file" = - ]; then
    was_file=$now none_file=''
    dated "$now"
    say file "$now"
  else
    none_file=yes
  fi
  usec='' mode=''
  if [ -f "$scheduled" ]; then
    while IFS='=' read -r key value; do
      case $key in USEC) usec=$value ;; MODE) mode=$value ;; esac
    done 2>/dev/null <"$scheduled"
  fi
  now=${usec:+$usec $mode}
  if [ "$now" = "$was_scheduled" ]; then
    none_scheduled=
  elif [ -n "$now$none_scheduled" ] || [ "$was_scheduled" = - ]; then
    was_scheduled=$now none_scheduled=''
    say scheduled "$now"
  else
    none_scheduled=yes
  fi
  beat=$((beat + 1))
  [ $((beat % 30)) != 0 ] || echo || exit
  sleep 1 || exit
done
