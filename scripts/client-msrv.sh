#!/usr/bin/env bash
# Checks the client library with the dependencies that a user of Rust 1.85 gets: cargo chooses the newest that name no newer Rust, and
# the library is compiled with them, by the present compiler. The compiler 1.85 itself is not run.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
. scripts/needs.sh
target=$(target_folder)
work=$(mktemp -d "${TMPDIR:-/tmp}/wharfinger-msrv.XXXXXX")
trap 'rm -rf "$work"' EXIT
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' client/Cargo.toml)

mkdir "$work/src"
echo 'pub use wharfinger_client::Client;' >"$work/src/lib.rs"
cat >"$work/Cargo.toml" <<END
[package]
name = "user"
version = "0.0.0"
edition = "2021"
rust-version = "$oldest"
[dependencies]
wharfinger-client = { path = "$root/client" }
[workspace]
resolver = "3"
END
cd "$work"
# The rule for a workspace in which each member says what it needs; without it the newest version of each crate is taken.
CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback cargo generate-lockfile --quiet
newer=$(cargo metadata --format-version 1 | python3 -c '
import json, sys
oldest = [int(part) for part in sys.argv[1].split(".")]
metadata = json.load(sys.stdin)
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
names = {package["id"]: package for package in metadata["packages"]}
seen, todo = set(), [metadata["resolve"]["root"]]
while todo:
    one = todo.pop()
    if one in seen:
        continue
    seen.add(one)
    for dep in nodes[one]["deps"]:
        if any(kind["kind"] != "dev" and not (kind["target"] and "windows" in kind["target"]) for kind in dep["dep_kinds"]):
            todo.append(dep["pkg"])
for one in sorted(seen):
    needs = names[one]["rust_version"]
    if needs and [int(part) for part in needs.split(".")][:2] > oldest:
        print(names[one]["name"], names[one]["version"], "needs Rust", needs)
' "$oldest")
[ -z "$newer" ] || {
  printf 'client-msrv: no version for Rust %s:\n%s\n' "$oldest" "$newer" >&2
  exit 1
}
CARGO_TARGET_DIR=$target/client-msrv cargo check --quiet
