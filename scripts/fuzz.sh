#!/usr/bin/env bash
# Runs each fuzz target for a number of seconds, from the corpus that is kept. A fault is an input in fuzz/artifacts: mend it, and keep the
# input in fuzz/corpus.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
cargo +nightly --version >/dev/null || {
  echo "fuzz.sh: a nightly compiler is missing: rustup toolchain install nightly" >&2
  exit 1
}
# Inputs that a run finds for itself stay out of the tree.
found=$(mktemp -d "${TMPDIR:-/tmp}/wharfinger-fuzz.XXXXXX")
trap 'rm -rf "$found"' EXIT
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
bad=0
for target in "${targets[@]}"; do
  printf '==> %s\n' "$target"
  mkdir -p "$found/$target"
  cargo +nightly fuzz run "$target" "$found/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 || bad=1
done
exit $bad
