# Prints what a host is and has, one KEY=VALUE a line; the last one is end=yes.
#
# Arguments: the scratch directory, absolute; "yes" to make it, or "no".
# Prints:    os, arch, cpus, user, boot_id, git, proc (yes, hidden or no), free_kb, scratch (yes or no), fault (why the scratch
#            directory cannot be used), end. A value may have any text but a newline.
# Exits:     0.
# shellcheck shell=sh
scratch=$1 make=$2
one_line() { tr '\n' ' '; }
echo "os=$(uname -s)"
echo "arch=$(uname -m)"
echo "cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
printf 'user=%s\n' "$(id -un | one_line)"
echo "boot_id=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
printf 'git=%s\n' "$(git --version 2>/dev/null | one_line)"
if [ ! -r "/proc/$$/stat" ]; then
  echo 'proc=no'
elif { true </proc/1/status; } 2>/dev/null; then
  echo 'proc=yes'
else
  echo 'proc=hidden'
fi
[ "$make" = no ] || mkdir -p -- "$scratch" 2>/dev/null
# The nearest directory that is there. Each step takes a component away, so it ends.
near=$scratch
while [ -n "$near" ] && [ ! -d "$near" ]; do
  case $near in */*) near=${near%/*} ;; *) near= ;; esac
done
printf 'free_kb=%s\n' "$(df -Pk -- "${near:-/}" 2>/dev/null | awk 'NR > 1 { print $4; exit }')"
if [ -d "$scratch" ]; then
  echo "scratch=yes"
  test_file=$scratch/.wharfinger-proof.$$
  if fault=$( (umask 077 && echo proof >"$test_file") 2>&1); then :; else
    printf 'fault=cannot write in it: %s\n' "$(printf '%s' "$fault" | one_line)"
  fi
  rm -f -- "$test_file"
else
  echo "scratch=no"
  [ "$make" = no ] || printf 'fault=cannot make it: %s\n' "$(mkdir -p -- "$scratch" 2>&1 | one_line)"
fi
echo "end=yes"
