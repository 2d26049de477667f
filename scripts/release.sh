#!/usr/bin/env bash
# Makes all files of a release, and publishes none: Debian packages, portable programs, bills of materials, the packages for Python and npm,
# the check that the crates could be published, SHA256SUMS.
#
#   scripts/release.sh OUT [--server PROGRAM] [--agent PROGRAM] [--without STEP,STEP]
#
# OUT: a directory, which is made. --server, --agent: programs that are built already; without them they are built here, which takes half an
# hour on two cores. Steps that --without leaves out: portable (scripts/portable.sh, another hour), python, npm, crates. A step that lacks something fails.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/needs.sh
. scripts/needs.sh

usage() {
  sed -n '2,/^set/{/^#/p}' "$0" | cut -c3- >&2
  exit 2
}
out="" server="" agent="" without=","
while [ $# -gt 0 ]; do
  case $1 in
  --server | --agent | --without)
    [ $# -gt 1 ] || usage
    case $1 in --server) server=$(realpath "$2") ;; --agent) agent=$(realpath "$2") ;; *) without=",$2," ;; esac
    shift 2
    ;;
  -*) usage ;;
  *)
    [ -z "$out" ] || usage
    out=$1
    shift
    ;;
  esac
done
[ -n "$out" ] || usage
mkdir -p "$out" && out=$(realpath "$out")
[ -z "$(ls -A "$out")" ] || {
  echo "release.sh: $out is not empty" >&2
  exit 1
}
target=$(target_folder)
step() { printf '\n==> %s\n' "$*"; }
wanted() { case $without in *",$1,"*) return 1 ;; esac }
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

if [ -z "$server" ]; then
  step "the server"
  cargo build --release --locked
  server=$out/.server && cp "$target/release/wharfinger" "$server"
fi
if [ -z "$agent" ]; then
  step "the agent"
  cargo build --release --locked --no-default-features --features agent
  agent=$out/.agent && cp "$target/release/wharfinger" "$agent"
fi

step "Debian packages"
packaging/deb/build.sh wharfinger "$server" "$out"
packaging/deb/build.sh wharfinger-agent "$agent" "$out"

step "bills of materials"
scripts/sbom.py >"$out/wharfinger-$version.cdx.json"
scripts/sbom.py agent >"$out/wharfinger-agent-$version.cdx.json"

if wanted portable; then
  step "portable programs, for glibc 2.28 and newer"
  for build in server agent; do
    program=$(scripts/portable.sh $build --release)
    name=wharfinger-$version-x86_64-linux
    [ $build = server ] || name=wharfinger-agent-$version-x86_64-linux
    tar -C "${program%/*}" --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" -cJf "$out/$name.tar.xz" wharfinger
  done
fi
if wanted python; then
  step "the wheel"
  need_clients
  "$CLIENTS/build/bin/python" -m build --no-isolation --wheel --outdir "$out" clients/python >/dev/null
fi
if wanted npm; then
  step "the npm package"
  need_typescript
  (cd clients/typescript && npm pack --silent --pack-destination "$out" >/dev/null)
fi
if wanted crates; then
  step "crates: could they be published"
  cargo publish --quiet --workspace --dry-run --no-verify --allow-dirty
fi
rm -f "$out/.server" "$out/.agent"
(cd "$out" && sha256sum -- * >SHA256SUMS)
step "in $out"
cat "$out/SHA256SUMS"
