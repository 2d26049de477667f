#!/usr/bin/env bash
# Checks that a program runs on each Linux with this glibc or a newer one: versions of its symbols, libraries, interpreter.
#
#   scripts/check-portable.sh PROGRAM VERSION      as in: scripts/check-portable.sh wharfinger 2.28
#
# Prints: the newest version that the program needs, and its libraries. Exits: 0 it runs, 1 it does not, 2 usage or a missing tool.
# A weak symbol counts too: where glibc lacks its version, the loader refuses the program or warns.
set -euo pipefail

[ $# = 2 ] || {
  sed -n '2,/^set/{/^#/p}' "$0" | cut -c3- >&2
  exit 2
}
program=$1 limit=$2
command -v objdump >/dev/null && command -v readelf >/dev/null || {
  echo "check-portable: objdump or readelf is missing: apt-get install binutils" >&2
  exit 2
}
# Libraries of glibc itself, and the unwinder of GCC, which each Linux with a C++ program has.
own=" libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libutil.so.1 libgcc_s.so.1 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1 "

status=0
fault() {
  echo "check-portable: $program $*" >&2
  status=1
}
symbols=$(objdump -T -- "$program")
versions=$(sed -n 's/.*GLIBC_\([0-9][0-9.]*\).*/\1/p' <<<"$symbols" | sort -Vu)
newest=${versions##*$'\n'}
[ -n "$newest" ] || fault "has no symbol of glibc: is it linked dynamically?"
[ "$(printf '%s\n%s\n' "$newest" "$limit" | sort -V | tail -n 1)" = "$limit" ] || {
  fault "needs glibc $newest, and not $limit at most:"
  while read -r version; do
    [ "$(printf '%s\n%s\n' "$version" "$limit" | sort -V | tail -n 1)" = "$limit" ] ||
      grep -F "GLIBC_$version" <<<"$symbols" | awk '{ print "  " $NF " " $(NF - 1) }' | head -n 5 >&2
  done <<<"$versions"
}
! grep -q GLIBC_PRIVATE <<<"$symbols" || fault "needs symbols that only one version of glibc has (GLIBC_PRIVATE)"
needed=$(readelf -dW -- "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for library in $needed; do
  case $own in *" $library "*) ;; *) fault "needs $library, which a machine may lack" ;; esac
done
interpreter=$(readelf -lW -- "$program" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
case $interpreter in
/lib64/ld-linux-x86-64.so.2 | /lib/ld-linux-aarch64.so.1) ;;
*) fault "has the interpreter ${interpreter:-none}, which a machine may lack" ;;
esac
echo "$program: glibc $newest; $(tr '\n' ' ' <<<"$needed")"
exit $status
