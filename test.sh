#!/usr/bin/env bash
# Runs every check and test. Installs what is missing (apt, a venv in target/venv), says what it does.
#
#   ./test.sh            everything; about 45 minutes cold on two cores
#   ./test.sh --long     the same, with the long loops: thousands of seeds, twenty kills
#   ./test.sh --fast     no lints, no end-to-end tests: the inner loop
#   ./test.sh --without postgresql,moto
#                        leaves out the tests that need these; otherwise a test that lacks something fails. Names: root,
#                        sshd, nft, postgresql, pgbouncer, git-lfs, faketime, systemd, venv, moto
set -euo pipefail
cd "$(dirname "$0")"

long=0 fast=0 without=""
needs=" root sshd nft postgresql pgbouncer git-lfs faketime systemd venv moto "
while [ $# -gt 0 ]; do
  arg=$1
  shift
  case "$arg" in
  --without)
    [ $# -gt 0 ] || {
      echo "test.sh: --without wants names (try --help)" >&2
      exit 2
    }
    without=$1
    shift
    for name in ${without//,/ }; do
      case "$needs" in
      *" $name "*) ;;
      *)
        echo "test.sh: no test needs $name (try --help)" >&2
        exit 2
        ;;
      esac
    done
    ;;
  --long) long=1 ;;
  --fast) fast=1 ;;
  -h | --help)
    sed -n '2,9p' "$0" | cut -c3-
    exit 0
    ;;
  *)
    echo "test.sh: unknown argument $arg (try --help)" >&2
    exit 2
    ;;
  esac
done

step() { printf '\n==> %s\n' "$*"; }
fail() {
  printf 'test.sh: %s\n' "$*" >&2
  exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.95 or newer (https://rustup.rs)"
command -v git >/dev/null || fail "git is missing: apt-get install git"

# shellcheck source=scripts/needs.sh
. scripts/needs.sh
# openssh-server: the hosts. nftables and iproute2: lost packets, black holes, a link that is down. faketime: a host whose
# clock is wild. gpg-agent: a process that its user cannot read. git-lfs: large files. openssl: a certificate for a remote that asks for a password.
need_packages openssh-server:/usr/sbin/sshd gcc:gcc nftables:/usr/sbin/nft iproute2:ip faketime:faketime gpg-agent:gpg-agent git-lfs:git-lfs openssl:openssl systemd:systemd-analyze || echo "test.sh: going on; tests that need what is missing fail" >&2
need_postgresql || echo "test.sh: going on; tests that need PostgreSQL fail" >&2
need_venv

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
export SIM_SEEDS=${SIM_SEEDS:-$([ $long = 1 ] && echo 10000 || echo 2000)}
export WHARFINGER_LONG=$long
export WHARFINGER_REQUIRE=1 WHARFINGER_WITHOUT=$without
skipped=$(mktemp "${TMPDIR:-/tmp}/wharfinger-skipped.XXXXXX")
trap 'rm -f "$skipped"' EXIT
export WHARFINGER_SKIPPED=$skipped

if [ $fast = 0 ]; then
  step "formatting"
  cargo fmt --all --check
  step "lints"
  cargo clippy --workspace --all-targets -- -D warnings
  step "the client library builds without the server, and the server without PostgreSQL"
  cargo check --no-default-features
  cargo check --no-default-features --features cli
fi

# One call for all, so that every crate is built once, with one set of features. $SIM_SEEDS seeds for the simulator.
if [ $fast = 0 ]; then
  step "all tests: the core, the adapters on real sshd and git, the server, $SIM_SEEDS simulated seeds, end to end"
  cargo test --workspace
else
  step "the tests without real hosts; $SIM_SEEDS simulated seeds"
  cargo test --workspace --lib --bins --test scenarios --test exhaustive --test it --test sim
fi

if [ -s "$skipped" ]; then
  step "skipped, as --without $without says"
  sort -u "$skipped"
fi
step "all passed"
