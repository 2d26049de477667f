#!/usr/bin/env bash
# Checks every shell script of the repository: shellcheck reports mistakes, shfmt reports another layout than `shfmt -i 2` writes.
# Arguments: none. Prints: each finding with its file and line. Exits: 0 nothing found, 1 a finding, 2 a tool is missing.
#
# The scripts of adapters/copies/src/sh are parts of programs. Each program that `scripts!` of git.rs makes is checked as a
# whole, so that a variable which no part sets is found; its findings are reported with the part's own lines.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
for tool in shellcheck shfmt; do
  command -v "$tool" >/dev/null 2>&1 || missing+=("$tool")
done
if [ ${#missing[@]} != 0 ]; then
  echo "lint-shell: missing ${missing[*]}: apt-get install ${missing[*]}" >&2
  exit 2
fi

mapfile -t files < <(git ls-files '*.sh' .ci/run '*.bash' 'integrations/buildkite/hooks/*')
[ ${#files[@]} != 0 ] || {
  echo "lint-shell: git lists no shell script" >&2
  exit 1
}
parts=adapters/copies/src/sh libraries=(adapters/host/src/sh/{cgroup,processes,fence}.sh)
work=$(mktemp -d)
cp .shellcheckrc "$work"
trap 'rm -rf -- "$work"' EXIT
status=0

# A program a line, as in: LIST = "credentials" "ask" "list"; The map has a line for each part: program, first line, file.
programs=0
while read -r name equals list; do
  [ "$equals" = = ] || continue
  read -ra names <<<"${list//[\";]/ }"
  line=1
  # The libraries that `Script::argv` puts before the parts.
  before=("$parts/prelude.sh")
  [ "${names[0]}" != stop ] || before+=("${libraries[@]}")
  for part in "${before[@]}" "${names[@]/#/$parts/}"; do
    part=${part%.sh}.sh
    printf '%s %s %s\n' "$name" "$line" "$part" >>"$work/map"
    cat -- "$part" >>"$work/$name"
    [ "$part" != "$parts/prelude.sh" ] || echo >>"$work/$name"
    line=$(($(wc -l <"$work/$name") + 1))
  done
  programs=$((programs + 1))
done < <(sed -n '/^scripts! {$/,/^}$/p' adapters/copies/src/git.rs)
[ "$programs" != 0 ] || {
  echo "lint-shell: no program found in adapters/copies/src/git.rs" >&2
  exit 1
}
for file in "${files[@]}"; do
  case $file in
  "$parts"/*) cut -d' ' -f3 "$work/map" | grep -qxF -- "$file" || { echo "$file: no program of adapters/copies/src/git.rs has this part" && status=1; } ;;
  *) printf '%s\n' "$file" >>"$work/alone" ;;
  esac
done

# A name that one program does not use another may: unused names and lines are reported where no program uses them.
(cd "$work" && cut -d' ' -f1 map | sort -u | xargs shellcheck -s sh -f gcc) >"$work/found" || [ -s "$work/found" ] || status=1
awk -F: -v libraries=" ${libraries[*]} " '
  NR == FNR { split($0, m, " "); n[m[1]]++; first[m[1], n[m[1]]] = m[2]; file[m[1], n[m[1]]] = m[3]; uses[m[3]]++; next }
  {
    for (i = n[$1]; i > 1 && first[$1, i] > $2; i--);
    # The libraries are checked alone.
    if (index(libraries, " " file[$1, i] " ")) next
    text = $0
    sub(/^[^:]*:[^:]*:/, "", text)
    finding = file[$1, i] ":" ($2 - first[$1, i] + 1) ":" text
    need = finding ~ /\[SC(2034|2317)\]$/ ? uses[file[$1, i]] : 1
    if (++seen[finding] == need) print finding
  }' "$work/map" "$work/found" | sort -t: -k1,1 -k2,2n >"$work/report"
cat "$work/report"
[ ! -s "$work/report" ] || status=1

mapfile -t alone <"$work/alone"
shellcheck -x -f gcc "${alone[@]}" || status=1
shfmt -i 2 -d "${files[@]}" || status=1
exit "$status"
