# Prints what a host is and has, one KEY=VALUE a line; the last one is end=yes.
#
# Follows:   boot.sh, cgroup.sh
# Arguments: the scratch directory, absolute; "yes" to make it, or "no"; the controllers that limits need (memory, cpu, pids),
#            with blanks between.
# Prints:    containment (cgroup, scope or marks), containment_fault (why marks), limits_fault (why a limit cannot be set), os, arch,
#            cpus, user, git, proc (yes, hidden or no), free_kb, free_inodes, scratch (yes or no), fault (why the scratch directory
#            cannot be used), exec_fault (why a program in it cannot be run), end. A value may have any text
#            but a newline.
# Changes:   makes the scratch directory, if asked to; writes a program there, runs it and removes it.
# Exits:     0.
# shellcheck shell=sh
scratch=$1 make=$2
one_line() { tr '\n' ' '; }
if cg_usable; then
  # shellcheck disable=SC2154
  if [ -n "$cg_scope" ]; then echo 'containment=scope'; else echo 'containment=cgroup'; fi
else
  # shellcheck disable=SC2154
  printf 'containment=marks\ncontainment_fault=%s\n' "$cg_fault"
fi
for controller in ${3-}; do cg_limitable "$controller" || printf 'limits_fault=%s\n' "$cg_fault"; done
echo "os=$(uname -s)"
echo "arch=$(uname -m)"
echo "cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
printf 'user=%s\n' "$(id -un | one_line)"
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
# "-", or a total of 0, where inodes are made as they are needed.
printf 'free_inodes=%s\n' "$(df -Pi -- "${near:-/}" 2>/dev/null | awk 'NR > 1 { if ($2 > 0) print $4; exit }')"
if [ -d "$scratch" ]; then
  echo "scratch=yes"
  test_file=$scratch/.wharfinger-proof.$$
  if fault=$( (umask 077 && printf '#!/bin/sh\nexit 0\n' >"$test_file" && chmod 700 "$test_file") 2>&1); then
    fault=$("$test_file" 2>&1) || printf 'exec_fault=%s\n' "$(printf '%s' "$fault" | one_line)"
  else
    printf 'fault=cannot write in it: %s\n' "$(printf '%s' "$fault" | one_line)"
  fi
  rm -f -- "$test_file"
else
  echo "scratch=no"
  [ "$make" = no ] || printf 'fault=cannot make it: %s\n' "$(mkdir -p -- "$scratch" 2>&1 | one_line)"
fi
echo "end=yes"
