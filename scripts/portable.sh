#!/usr/bin/env bash
# Builds a program for glibc 2.28 (Debian 10, RHEL 8) and newer with zig as the linker, and checks that it is one.
#
#   scripts/portable.sh server|agent [ARGUMENT...]      arguments of cargo build: --release, --profile demo
#
# Prints: the path of the program; messages go to standard error. Exits: 0 it is there, 1 it is not.
# zig and cargo-zigbuild come from PyPI into cargo's folder. The program is built with the packages of Cargo.lock.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/needs.sh
. scripts/needs.sh
glibc=2.28

features=()
case ${1:-} in
server) ;;
agent) features=(--no-default-features --features agent) ;;
*)
  sed -n '2,/^set/{/^#/p}' "$0" | cut -c3- >&2
  exit 1
  ;;
esac
shift
case $(uname -m) in
x86_64 | aarch64) triple=$(uname -m)-unknown-linux-gnu ;;
*)
  echo "portable: no build for $(uname -m)" >&2
  exit 1
  ;;
esac
profile=debug
while read -r argument; do
  case $argument in
  --release) profile=release ;;
  --profile) profile=next ;;
  --profile=*) profile=${argument#*=} ;;
  --*) ;;
  *) [ "$profile" != next ] || profile=$argument ;;
  esac
done < <(printf '%s\n' "$@")
need_zig >&2
need_packages binutils:readelf >&2
PATH=$ZIG:$PATH cargo zigbuild --locked --bin wharfinger --target "$triple.$glibc" "${features[@]}" "$@" >&2
program=$(target_folder)/$triple/$profile/wharfinger
scripts/check-portable.sh "$program" "$glibc" >&2
printf '%s\n' "$program"
