#!/usr/bin/env bash
# Runs every check and test, goes on after a failure, and prints a table at the end. Installs what is missing and prints what
# it installs.
#
#   ./test.sh [PART...]      all parts, or these; about 55 minutes cold on two cores
#   ./test.sh --fast         the inner loop: no lints, no end-to-end tests, the adapters' unit tests alone
#   ./test.sh --long         the long loops: 10,000 seeds of the simulator, twenty kills, a minute of each fuzz target, the packages
#   ./test.sh --without postgresql,moto
#                            leaves out the tests that need these; otherwise a test that lacks something fails
#   ./test.sh --list         prints the parts, and what --without takes
#
# A failed test runs once more. If it passes then, the run passes, and the table names the test as flaky.
set -euo pipefail
cd "$(dirname "$0")"

# Part, and what is in it.
parts="lint core local ssh copies ec2 server sim e2e ci clients packages fuzz"
describe() {
  case $1 in
  lint) echo "formatting, clippy, builds with fewer features, shell scripts, the API (buf)" ;;
  core) echo "the lease core and its types: scenarios and the exhaustive search; the testkit" ;;
  local) echo "adapters: this machine, the contract, the scripts of hosts, the fake" ;;
  ssh) echo "adapters: SSH hosts, on a real sshd" ;;
  copies) echo "adapters: git working copies, on real git" ;;
  ec2) echo "adapters: EC2, on a simulated account" ;;
  server) echo "stores, engine, services, client, command line; documentation tests" ;;
  sim) echo "the simulator with its oracle" ;;
  e2e) echo "the program, end to end" ;;
  ci) echo "CI products: seven cases in each, the action, the plugin" ;;
  clients) echo "the Python package, its pytest plugin, Buildbot and Ansible, and the TypeScript package, against the program" ;;
  packages) echo "Debian packages in a Debian of their own, bills of materials, the release script (--long; fetches a Debian)" ;;
  fuzz) echo "parsers that strangers feed, with inputs of a fuzzer (--long; needs a nightly compiler)" ;;
  esac
}
# Programs and privileges that a test may need: crate testkit.
needs=" root sshd nft postgresql pgbouncer git-lfs faketime systemd cgroup venv moto prometheus chromium tmux shells "

usage() {
  echo "test.sh: $1 (try --help)" >&2
  exit 2
}

long=0 fast=0 without="" chosen=()
while [ $# -gt 0 ]; do
  arg=$1
  shift
  case "$arg" in
  --long) long=1 ;;
  --fast) fast=1 ;;
  --without)
    [ $# -gt 0 ] || usage "--without takes names"
    without=$1
    shift
    for name in ${without//,/ }; do
      case "$needs" in *" $name "*) ;; *) usage "no test needs $name" ;; esac
    done
    ;;
  --list)
    for part in $parts; do printf '%-9s %s\n' "$part" "$(describe "$part")"; done
    printf '%-9s %s\n' adapters "local, ssh, copies and ec2"
    printf '\n--without takes:%s\n' "$needs"
    exit 0
    ;;
  -h | --help)
    sed -n '2,/^set/{/^#/p}' "$0" | cut -c3-
    exit 0
    ;;
  adapters) chosen+=(local ssh copies ec2) ;;
  *)
    case " $parts " in *" $arg "*) chosen+=("$arg") ;; *) usage "unknown argument $arg" ;; esac
    ;;
  esac
done
if [ ${#chosen[@]} = 0 ]; then
  for part in $parts; do
    case "$fast$long $part" in 1?" lint" | 1?" e2e" | 1?" ci" | 1?" clients" | ?0" packages" | 1?" packages" | ?0" fuzz" | 1?" fuzz") ;; *) chosen+=("$part") ;; esac
  done
fi

fail() {
  printf 'test.sh: %s\n' "$*" >&2
  exit 1
}
step() { printf '\n==> %s\n' "$*"; }

command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.95 or newer (https://rustup.rs)"
command -v git >/dev/null || fail "git is missing: apt-get install git"
# shellcheck source=scripts/needs.sh
. scripts/needs.sh
target=$(target_folder) || fail "cargo cannot read Cargo.toml"

# All that this run makes: its notes, and the temporary folders of the tests, which other users enter too.
work=$(mktemp -d "${TMPDIR:-/tmp}/wharfinger-test.XXXXXX")
chmod 755 "$work"
mkdir -m 1777 "$work/tmp"
finish() {
  # The PostgreSQL that the tests share ends with the runner, which takes a moment.
  for _ in $(seq 50); do
    [ -n "$(find "$work/tmp" -maxdepth 1 -name 'wharfinger-pg.*' -print -quit)" ] || break
    sleep 0.2
  done
  awk -v below="$work/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | while read -r mount; do
    umount -l "$mount" || true
  done
  rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
touch "$work/failed" "$work/flaky" "$work/why" "$work/skipped" "$work/rows"

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
export SIM_SEEDS=${SIM_SEEDS:-$([ $long = 1 ] && echo 10000 || echo 1000)}
export WHARFINGER_LONG=$long
export WHARFINGER_REQUIRE=1 WHARFINGER_WITHOUT=$without WHARFINGER_SKIPPED=$work/skips

# Of the part that runs.
passed=0 failed=0 skipped=0
bad() {
  printf '%s\n' "$1" >>"$work/failed"
  failed=$((failed + 1))
}

# check NAME COMMAND…: runs a command, which is one check of the part.
check() {
  local name=$1
  shift
  step "$name"
  if "$@"; then passed=$((passed + 1)); else bad "$name"; fi
}

# Parts whose tests the runner runs, all at once where several are chosen: some wait most of the time, others compute.
run_at_once=" core local ssh copies ec2 server sim e2e "
# The result of that run.
at_once=$work/at-once.xml

# tests ARGUMENT…: runs tests by the runner, with its arguments, and counts them; or counts those of the run of all.
tests() {
  if [ -e "$at_once" ]; then
    count_tests "$at_once" "$part"
    return
  fi
  local junit=$target/nextest/ci/junit.xml ended=0 failed_before=$failed
  run_tests "$@" || ended=$?
  if [ ! -e "$junit" ]; then
    bad "$part: its tests do not build or do not start (cargo nextest run $*)"
    return
  fi
  count_tests "$junit" ""
  # The runner may fail for another reason than a test, such as a filter that selects none.
  if [ $ended != 0 ] && [ $failed = "$failed_before" ]; then bad "$part: the runner ended with $ended"; fi
}
# Three for each core: tests that wait leave it to others.
run_tests() {
  local ended=0
  rm -f "$target/nextest/ci/junit.xml" "$work/skips"
  TMPDIR=$work/tmp RUST_BACKTRACE=0 cargo nextest run --profile ci --test-threads $((3 * $(nproc))) "$@" || ended=$?
  [ ! -e "$work/skips" ] || sort -u "$work/skips" >>"$work/skipped"
  return $ended
}

# count_tests FILE PART: counts the tests of a part, or all, in a report of the runner. Prints the sum of their seconds to
# $work/seconds.
count_tests() {
  local counts
  counts=$(awk -v failed="$work/failed" -v flaky="$work/flaky" -v why="$work/why" -v part="$2" -v seconds="$work/seconds" -v skips="$work/skips" '
    BEGIN { while ((getline line <skips) > 0) { sub(/: .*/, "", line); left_out[line] } }
    function of(binary) {
      if (binary == "wharfinger::e2e") return "e2e"
      if (binary ~ /^wharfinger-sim(:|$)/) return "sim"
      if (binary ~ /^wharfinger-(types|core|testkit)(:|$)/) return "core"
      if (binary ~ /^wharfinger-(local|adapter|host|fake)(:|$)/) return "local"
      if (match(binary, /^wharfinger-(ssh|copies|ec2)(:|$)/)) { sub(/^wharfinger-/, "", binary); sub(/:.*/, "", binary); return binary }
      return "server"
    }
    /^ *<testcase / {
      match($0, / name="[^"]*"/); name = substr($0, RSTART + 7, RLENGTH - 8)
      match($0, / classname="[^"]*"/); binary = substr($0, RSTART + 12, RLENGTH - 13); name = binary " " name
      match($0, / time="[^"]*"/); time = substr($0, RSTART + 7, RLENGTH - 8)
      mine = part == "" || of(binary) == part
      if (mine) { all++; spent += time; test = name; sub(/^[^ ]* /, "", test); skipped += test in left_out }
    }
    !mine { next }
    /^            <(flakyFailure|failure|rerunFailure) / { lines = 12; print name >>why }
    /^ *(<\/(flakyFailure|failure|rerunFailure|testcase)|<system-)/ { lines = 0 }
    lines > 0 {
      lines--; line = $0
      sub(/^ *<[a-zA-Z]+ /, "", line); gsub(/&quot;/, "\"", line); gsub(/&apos;/, "\47", line); gsub(/&lt;/, "<", line); gsub(/&gt;/, ">", line); gsub(/&amp;/, "\\&", line)
      if (line !~ /^ *$/) print "    " substr(line, 1, 600) >>why
    }
    /^            <failure / { bad++; print name (/type="test timeout"/ ? " (time limit)" : "") >>failed }
    /^            <flakyFailure / && name != last { print name >>flaky; last = name }
    END { printf "%d\n", spent >seconds; print all - bad - skipped, bad + 0, skipped + 0 }' "$1")
  read -ra counts <<<"$counts"
  passed=$((passed + counts[0])) failed=$((failed + counts[1])) skipped=$((skipped + counts[2]))
}

# tests_of PART: the tests of a part, as a filter of the runner.
tests_of() {
  case $1 in
  core) echo "package(=wharfinger-types) | package(=wharfinger-core) | package(=wharfinger-testkit)" ;;
  local) echo "package(=wharfinger-local) | package(=wharfinger-adapter) | package(=wharfinger-host) | package(=wharfinger-fake)" ;;
  ssh) echo "package(=wharfinger-ssh)" ;;
  copies) echo "package(=wharfinger-copies)" ;;
  ec2) echo "package(=wharfinger-ec2)" ;;
  sim) echo "package(=wharfinger-sim)" ;;
  e2e) echo "package(=wharfinger) & binary(e2e)" ;;
  server)
    echo "(package(=wharfinger) - binary(e2e)) | package(=wharfinger-client) | package(=wharfinger-client-generate) | package(=wharfinger-tls) | package(=wharfinger-jwt)"
    ;;
  esac
}

# of_adapters PART FOLDER…: the tests of a part, which are in these folders. The whole workspace is selected, so that each crate has one set of
# features in all parts, and is built once.
of_adapters() {
  local targets=(--lib) file folder
  for folder in "${@:2}"; do
    [ $fast = 0 ] || continue
    for file in adapters/"$folder"/tests/*.rs; do
      [ ! -e "$file" ] || targets+=(--test "$(basename "$file" .rs)")
    done
  done
  tests --workspace "${targets[@]}" -E "$(tests_of "$1")"
}

part_lint() {
  need_packages shellcheck:shellcheck shfmt:shfmt || true
  check "formatting" cargo fmt --all --check
  check "clippy" cargo clippy --workspace --all-targets -- -D warnings
  check "the client library builds without the server" cargo check -p wharfinger-client
  check "the client library is documented" env RUSTDOCFLAGS="-D warnings" cargo doc --quiet -p wharfinger-client --no-deps
  check "the client library builds with the dependencies of Rust 1.85" scripts/client-msrv.sh
  check "the agent's command line builds without the server" cargo clippy --no-default-features --features agent -- -D warnings
  check "the server builds without PostgreSQL and EC2" cargo check --no-default-features --features cli
  check "shell scripts" scripts/lint-shell.sh
  check "the documentation: pages of the book, links" scripts/check-docs.py
  need_buf || true
  check "the API's files follow the rules of buf" "$BUF" lint
  check "the API's files have the layout of buf" "$BUF" format --diff --exit-code
  check "the API breaks no client of the last release" "$BUF" breaking --against proto/baseline.binpb
  check "the crates could be published" cargo publish --quiet --workspace --dry-run --no-verify --allow-dirty
  # Without advisories: their database is not in every network.
  check "dependencies" dependencies
}
dependencies() { need_deny && cargo deny --locked check bans licenses sources; }
# The core, its types and the testkit have no other dependencies: alone they are built with the features that they have in
# the workspace.
part_core() { tests -p wharfinger-types -p wharfinger-core -p wharfinger-testkit; }
part_local() { of_adapters local local api host fake; }
part_ssh() { of_adapters ssh ssh; }
part_copies() { of_adapters copies copies; }
part_ec2() { of_adapters ec2 ec2; }
part_server() {
  tests --workspace --lib --bins --test it --test generated --test handshakes --test certificates --test jwt --test keys -E "$(tests_of server)"
  check "documentation tests" cargo test --quiet --workspace --doc
}
part_sim() { tests --workspace --test sim; }
part_fuzz() {
  check "each fuzz target, for a minute" scripts/fuzz.sh 60
}
part_e2e() { tests --workspace --test e2e; }
part_ci() {
  # The program is built as the part e2e builds it.
  check "the program builds" cargo test --quiet --workspace --test e2e --no-run
  check "the action's functions" node --test integrations/github/test/
  check "the plugin's hooks" bats integrations/buildkite/tests
  check "the wheel is made, and installed in empty environments" install_wheel
  integrations
}

# integrations: the tests in Python, with the program of cargo's folder.
integrations() {
  local tally counts
  tally=$(mktemp -d "$work/tally.XXXXXX")
  PYTEST_DEBUG_TEMPROOT=$tally WHARFINGER_TALLY=$tally WHARFINGER_PROGRAM=$target/debug/wharfinger WHARFINGER_CLIENT_BIN=$CLIENTS/main/bin PYTHONDONTWRITEBYTECODE=1 TMPDIR=$work/tmp \
    "${CI_VENV:-/nonexistent}/bin/python" -m pytest -q -n 6 --reruns 1 integrations/tests || true
  if [ ! -e "$tally/counts" ]; then
    bad "$part: its tests in Python do not start"
    return
  fi
  read -ra counts <"$tally/counts"
  passed=$((passed + counts[0])) failed=$((failed + counts[1])) skipped=$((skipped + counts[2]))
  cat "$tally/failed" >>"$work/failed"
  cat "$tally/flaky" >>"$work/flaky"
  cat "$tally/skipped" >>"$work/skipped"
}

part_clients() {
  # As for the end-to-end tests, so that the program is built once.
  check "the program is built" cargo test --quiet --workspace --test e2e --no-run
  check "the wheel is made, and installed in empty environments" install_wheel
  pytests tests/clients
  check "the TypeScript package is made, and its tests" make_typescript
  node_tests clients/typescript/build/test
}
make_typescript() { (cd clients/typescript && npm run --silent build && npm run --silent build:test); }

# node_tests FOLDER: runs tests by Node, and counts them. If some fail, all run once more.
node_tests() {
  local folder=$1 passed_now name again
  step "node --test $folder"
  node_run "$folder" "$work/node"
  passed_now=$(grep -c '^ok ' "$work/node" || true)
  passed=$((passed + passed_now))
  if [ "$passed_now" = 0 ]; then
    bad "$part: its tests do not start (node --test $folder)"
    return
  fi
  mapfile -t again < <(sed -n 's/^not ok [0-9]* - //p' "$work/node")
  [ ${#again[@]} != 0 ] || return 0
  node_run "$folder" "$work/node-again"
  for name in "${again[@]}"; do
    if sed -n 's/^ok [0-9]* - //p' "$work/node-again" | grep -qxF -- "$name"; then
      passed=$((passed + 1))
      printf '%s\n' "$name" >>"$work/flaky"
    else
      bad "$name"
    fi
  done
}
node_run() {
  TMPDIR=$work/tmp WHARFINGER_PROGRAM=$target/debug/wharfinger WHARFINGER_VENVS=$CLIENTS node --test --test-reporter tap "$1"/*.test.js |
    tee "$2" | sed '/^ *duration_ms/d; /^ *type:/d; /^ *---$/d; /^ *\.\.\.$/d; /^# Subtest/d' || true
}
part_packages() {
  check "the program is built" cargo test --quiet --workspace --test e2e --no-run
  check "Debian packages: installed, upgraded, removed, purged" packaging/deb/test.sh "$target/debug/wharfinger"
  check "a release without its long builds" release_dry
  check "the agent's program for glibc 2.28" portable_agent
}
portable_agent() {
  local program
  ! scripts/check-portable.sh "$target/debug/wharfinger" 2.2 2>/dev/null || return 1
  program=$(scripts/portable.sh agent --profile demo) && "$program" --version
}
release_dry() {
  PACKAGE_COMPRESSION=none scripts/release.sh "$work/release" --server "$target/debug/wharfinger" --agent "$target/debug/wharfinger" --without portable,python,npm,crates &&
    (cd "$work/release" && sha256sum --check --quiet SHA256SUMS && [ "$(wc -l <SHA256SUMS)" = 4 ] &&
      python3 -c 'import json, sys; [json.load(open(name))["components"][0]["purl"] for name in sys.argv[1:]]' ./*.cdx.json)
}
install_wheel() {
  local name
  rm -rf "$work/dist"
  "$CLIENTS/build/bin/python" -m build --no-isolation --wheel --outdir "$work/dist" clients/python >"$work/wheel.log" 2>&1 || {
    cat "$work/wheel.log"
    return 1
  }
  for name in main old new; do
    "$CLIENTS/$name/bin/pip" install -q --disable-pip-version-check --no-index --no-deps --force-reinstall "$work"/dist/*.whl || return 1
  done
}

# pytests FOLDER: runs tests by pytest, and counts them. Those that fail run once more, one after the other.
pytests() {
  local list=$work/pytest passed_now again=()
  step "pytest $1"
  rm -f "$list"
  WHARFINGER_COUNTS=$list run_pytest -n 3 "$1" || true
  if [ ! -s "$list" ]; then
    bad "$part: its tests do not start (pytest $1)"
    return
  fi
  passed_now=$(head -n 1 "$list")
  passed=$((passed + passed_now))
  mapfile -t again < <(tail -n +2 "$list")
  [ ${#again[@]} != 0 ] || return 0
  rm -f "$list"
  WHARFINGER_COUNTS=$list run_pytest "${again[@]}" || true
  [ -s "$list" ] || printf '0\n%s\n' "${again[@]}" >"$list"
  local name
  for name in "${again[@]}"; do
    if tail -n +2 "$list" | grep -qxF -- "$name"; then
      bad "$name"
    else
      passed=$((passed + 1))
      printf '%s\n' "$name" >>"$work/flaky"
    fi
  done
}
run_pytest() {
  TMPDIR=$work/tmp WHARFINGER_PROGRAM=$target/debug/wharfinger WHARFINGER_VENVS=$CLIENTS "$CLIENTS/main/bin/python" -m pytest \
    -c clients/python/pyproject.toml --rootdir . --basetemp "$work/pytest-tmp" -q "$@"
}

# Programs that a part needs beside Rust. openssh-server: the hosts. nftables and iproute2: lost packets, a link that is down.
# gpg-agent: a process that its user cannot read. rsync, sudo: logins of holders. busybox: another /bin/sh. nodejs, bats, jq, make, procps: CI products. faketime: a host whose clock is wild, an index that git wrote tomorrow. systemd, dbus-user-session: a user's service manager. openssl: certificates of a database and of a remote.
install_for() {
  [ "$1" = lint ] || need_packages gcc:gcc || return 1
  [ "$1" = lint ] || need_nextest || return 1
  case $1 in
  ssh | copies | ec2 | e2e | clients) need_packages openssh-server:/usr/sbin/sshd nftables:/usr/sbin/nft iproute2:ip || return 1 ;;
  esac
  case $1 in local | copies) need_packages busybox:busybox || return 1 ;; esac
  [ "$1" != local ] || need_packages systemd:/usr/bin/busctl || return 1
  [ "$1" != ssh ] || need_packages gpg-agent:gpg-agent rsync:rsync sudo:sudo || return 1
  case $1 in copies | e2e) need_packages git-lfs:git-lfs openssl:openssl || return 1 ;; esac
  case $1 in ssh | copies | e2e) need_packages faketime:faketime || return 1 ;; esac
  case $1 in server | e2e) need_postgresql && need_packages openssl:openssl && need_venv || return 1 ;; esac
  [ "$1" != server ] || need_packages systemd:systemd-analyze || return 1
  [ "$1" != e2e ] || need_prometheus || return 1
  [ "$1" != ci ] || need_packages openssh-server:/usr/sbin/sshd nodejs:node bats:bats jq:jq make:make procps:ps || return 1
  [ "$1" != ci ] || { need_ci_venv && need_clients; } || return 1
  [ "$1" != packages ] || need_packages debootstrap:/usr/sbin/debootstrap lintian:lintian dpkg-dev:dpkg-shlibdeps groff-base:groff binutils:strip || return 1
  [ "$1" != clients ] || { need_clients && need_typescript; } || return 1
  [ "$1" != e2e ] || { need_packages chromium:chromium chromium-driver:chromedriver tmux:tmux zsh:zsh fish:fish && need_axe; } || return 1
  [ "$1" != e2e ] || need_packages systemd:/usr/bin/busctl dbus-user-session:/usr/lib/systemd/user/dbus.socket || return 1
}

for part in "${chosen[@]}"; do
  install_for "$part" || echo "test.sh: going on; what needs the missing programs fails" >&2
done

# The tests of several parts in one run. --fast leaves out tests of a part, so that it has one run a part.
together=()
for part in "${chosen[@]}"; do
  case "$run_at_once" in *" $part "*) together+=("$part") ;; esac
done
took=0
if [ $fast = 0 ] && [ ${#together[@]} -gt 1 ]; then
  step "the tests of ${together[*]}"
  begun=$SECONDS
  run_tests --workspace -E "$(for part in "${together[@]}"; do printf '%s(%s)' "${or:-}" "$(tests_of "$part")" && or=" | "; done)" || true
  took=$((SECONDS - begun))
  if [ -e "$target/nextest/ci/junit.xml" ]; then cp "$target/nextest/ci/junit.xml" "$at_once"; fi
fi

total_passed=0 total_failed=0 total_skipped=0
for part in "${chosen[@]}"; do
  step "$part: $(describe "$part")"
  begun=$SECONDS passed=0 failed=0 skipped=0
  rm -f "$work/seconds"
  "part_$part"
  spent=$((SECONDS - begun))
  if [ -e "$at_once" ] && [ -e "$work/seconds" ]; then spent=$((spent + $(cat "$work/seconds"))); fi
  result=passed
  [ $failed = 0 ] || result=FAILED
  printf '%-9s %-7s %8d %7d %7d %8d\n' "$part" $result $spent $passed $failed $skipped >>"$work/rows"
  total_passed=$((total_passed + passed)) total_failed=$((total_failed + failed)) total_skipped=$((total_skipped + skipped))
done

# list TITLE FILE: prints a list, unless it is empty.
list() {
  [ -s "$2" ] || return 0
  printf '\n%s\n' "$1"
  sed 's/^/  /' "$2"
}
printf '\n%-9s %-7s %8s %7s %7s %8s\n' part result seconds passed failed skipped
cat "$work/rows"
[ ! -e "$at_once" ] || printf '\nThe tests of %s ran at once, in %d s with their builds. Their seconds above are the sums of their tests.\n' "${together[*]}" $took
list "flaky: failed once, then passed:" "$work/flaky"
list "skipped, by --without $without:" "$work/skipped"
list "failed:" "$work/failed"
find "$work/tmp" -mindepth 1 -maxdepth 1 ! -name 'wharfinger-pg.*' -printf '%f\n' >"$work/left"
list "how the tests failed, each time:" "$work/why"
list "left in the folder for temporary files, and removed now:" "$work/left"
printf '\n%d passed, %d failed' $total_passed $total_failed
[ $total_skipped = 0 ] || printf ', %d skipped' $total_skipped
printf '\n'
[ $total_failed = 0 ]
