#!/usr/bin/env bash
# The main job in one command: a build runs in a leased git working copy, the copy is destroyed from under it, the lease
# breaks, and the build runs again on a fresh one.
#
#   ./demo.sh [--keep] [GIT-URL-OR-PATH]
#
# The repository is Wharfinger's own unless you name another. --keep leaves the server up and prints commands to try.
# Everything is embedded: SQLite, this machine as the host; nothing outside a temporary folder is touched.
set -euo pipefail
cd "$(dirname "$0")"

keep=0 repository=""
for arg in "$@"; do
  case "$arg" in
  --keep) keep=1 ;;
  -h | --help)
    sed -n '2,8p' "$0" | cut -c3-
    exit 0
    ;;
  -*)
    echo "demo.sh: unknown argument $arg (try --help)" >&2
    exit 2
    ;;
  *) repository=$arg ;;
  esac
done

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n==> %s\n' "$*"; }
fail() {
  printf 'demo.sh: %s\n' "$*" >&2
  exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.95 or newer (https://rustup.rs)"
command -v git >/dev/null || fail "git is missing: apt-get install git"
# shellcheck source=scripts/needs.sh
. scripts/needs.sh
need_packages gcc:gcc || fail "gcc is missing: it builds SQLite and the cryptography"
target=$(target_folder) || fail "cargo cannot read Cargo.toml"

if [ -z "$repository" ]; then
  repository=$PWD
  git -C "$repository" rev-parse HEAD >/dev/null 2>&1 || fail "this folder is no git repository with a commit: name one, ./demo.sh URL"
elif [ -d "$repository" ]; then
  repository=$(cd "$repository" && pwd)
fi

say "building wharfinger (a few minutes the first time)"
cargo build --quiet --profile demo --no-default-features --features cli --bin wharfinger
wharfinger=$target/demo/wharfinger

folder=$(mktemp -d "${TMPDIR:-/tmp}/wharfinger-demo.XXXXXX")
server="" watch="" saboteur=""
finish() {
  for pid in $saboteur $watch $server; do kill "$pid" 2>/dev/null || true; done
  [ -z "$server" ] || wait "$server" 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

port=7411
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
export WHARFINGER_SERVER=http://127.0.0.1:$port
cat >"$folder/wharfinger.toml" <<TOML
[server]
listen = "127.0.0.1:$port"

[store]
path = "wharfinger.db"

[[pool]]                      # this machine, as a host with room for two working copies
name = "hosts"
adapter = "local"
slots = 2
[pool.local]
root = "$folder/hosts"

[[pool]]                      # working copies of one repository on it
name = "copies"
adapter = "copies"
on = "hosts"
max = 2
[pool.copies]
repository = "$repository"
TOML

say "the configuration"
"$wharfinger" check-config "$folder/wharfinger.toml"

say "starting the server on 127.0.0.1:$port"
WHARFINGER_LOG=${WHARFINGER_LOG:-warn} "$wharfinger" serve --config "$folder/wharfinger.toml" 2>"$folder/server.log" &
server=$!
for _ in $(seq 100); do
  "$wharfinger" pools >/dev/null 2>&1 && break
  kill -0 "$server" 2>/dev/null || {
    cat "$folder/server.log" >&2
    fail "the server did not start; its words are above"
  }
  sleep 0.1
done

# The watch, beside everything that follows.
# Not by a pipe: its last process would be the one that is ended, and the watch would wait for its server for ever.
"$wharfinger" watch --pool copies 2>/dev/null > >(sed -u 's/^/      watch | /') &
watch=$!

say "a build in a leased working copy of $repository"
"$wharfinger" run --pool copies --holder demo/first -- \
  sh -c 'echo "building $(git rev-parse --short HEAD) in $WHARFINGER_PATH"; git ls-files | wc -l | sed "s/$/ files/"; echo built'

say "the same build, and somebody removes .git from under it"
# Damage that no broker controls: a script gone wild, a colleague, a full disk. Once, as soon as the build runs.
(
  while [ ! -s "$folder/where" ]; do sleep 0.05; done
  rm -rf "$(cat "$folder/where")/.git"
  echo "   saboteur | removed .git of $(cat "$folder/where")"
) &
saboteur=$!
"$wharfinger" run --pool copies --holder demo/second --retries 2 -- sh -c '
  [ -s "'"$folder"'/where" ] || { echo "$WHARFINGER_PATH" > "'"$folder"'/where.new" && mv "'"$folder"'/where.new" "'"$folder"'/where"; }
  for step in 1 2 3 4 5; do
    git ls-files > /dev/null || { echo "step $step: git does not work here any more"; exit 1; }
    echo "step $step: $(git rev-parse --short HEAD)"
    sleep 0.3
  done
  echo "built on token $WHARFINGER_TOKEN"'
saboteur=""

say "what happened, from the audit trail"
"$wharfinger" events --pool copies --limit 14

say "done: the break was noticed, told and mended; the build succeeded without a hand"
if [ $keep = 1 ]; then
  cat <<TRY

The server stays up until you press Ctrl-C. In another terminal:

  export WHARFINGER_SERVER=$WHARFINGER_SERVER PATH=$target/demo:\$PATH
  wharfinger pools
  wharfinger resources
  wharfinger lease --pool copies --wait 30s
  wharfinger run --pool copies -- git log --oneline -3
  wharfinger watch
  grpcurl -plaintext 127.0.0.1:$port list
  grpcurl -plaintext -d '{"requestId":"try-1","holder":"me","selector":{"pool":"copies"},"wait":"30s"}' \\
      127.0.0.1:$port wharfinger.v1.LeaseService/Lease
TRY
  wait "$server"
fi
