# Makes and maintains the host's mirror of a repository, which all its copies on the host share. A library in front of another
# script's text. Builds run as the mirror's owner, so its readers fetch from it, and hash every object.
#
# Follows:   credentials.sh, in front of pull.sh
# Arguments: the mirror's directory; its configuration; the origin's address; the origin's default branch, or empty; seconds for a
#            fetch; seconds for a clone; MB that must be free. It shifts them away.
# Sets:      $X, the mirror; file descriptors 8, the writers' lock, and 9, the readers' lock. Both lie beside the mirror and end
#            with their process.
# Exits:     by `make`: 94, the origin did not give it; 95, the mirror vanished; 98, no time left; 93, 127 (prelude.sh).
X=$1 x_config=$2 url=$3 default=$4 fetch_limit=$5 clone_limit=$6 min=$7
shift 7
have_git
for t in flock timeout; do
  command -v $t >/dev/null 2>&1 || {
    echo "$t is missing" >&2
    exit 127
  }
done
far_end
up=${X%/*}
if [ -e "$up" ] || [ -L "$up" ]; then [ -d "$up" ] || remove "$up"; fi
thaw "$up"
# Opening a pipe would wait for its other end (fifo(7)).
for f in "$X.lock" "$X.use"; do
  [ -e "$f" ] || [ -L "$f" ] || continue
  [ -f "$f" ] && [ ! -L "$f" ] || remove "$f"
done
e=$({ mkdir -p -- "$up" && : >>"$X.lock" && : >>"$X.use"; } 2>&1) || say CANNOT_CREATE "$e"
# .lock: the lock of the writer. .use: the shared lock of the readers; repacking and removal take it exclusively. Both end with
# their process. They are beside the mirror, so that they outlive it.
exec 8>>"$X.lock" 9>>"$X.use"

m() { git --git-dir="$X" "$@"; }

# Runs a command with a time limit, in this script's process group if timeout(1) can: a signal to the group ends git, too.
limit() {
  if timeout --foreground 1 true 2>/dev/null; then set -- --foreground "$@"; fi
  timeout -k 10 "$@"
  rc=$?
  # A command that timeout(1) kills exits with another code.
  [ $rc != 137 ] || rc=124
  return $rc
}

# Brings the mirror to a known state. Fails if there is none, or if it has to be made anew.
tidy() {
  for d in "$X" "$X/objects" "$X/refs"; do
    [ -d "$d" ] && [ ! -L "$d" ] || return 1
  done
  [ -f "$X/made" ] && [ ! -L "$X/made" ] || return 1
  # The origin has another object format now.
  if [ -f "$X/config" ] && [ ! -L "$X/config" ]; then
    case $(head -c 4096 "$X/config" | tr -d '\0') in *'objectformat = sha256'*) now=sha256 ;; *) now=sha1 ;; esac
    case $x_config in *'objectformat = sha256'*) [ $now = sha256 ] || return 1 ;; *) [ $now = sha1 ] || return 1 ;; esac
  fi
  for f in "$X"/* "$X"/.[!.]* "$X"/..?* "$X"/refs/* "$X"/refs/.[!.]*; do
    [ -e "$f" ] || [ -L "$f" ] || continue
    case ${f#"$X"/} in
    made | objects | refs | refs/heads | refs/wharfinger) [ ! -L "$f" ] || remove "$f" ;;
    config | HEAD | packed-refs) if [ -L "$f" ] || [ ! -f "$f" ]; then remove "$f"; fi ;;
    shallow) { [ -n "$H" ] && fit_shallow "$f"; } || remove "$f" ;;
    *) remove "$f" ;;
    esac
  done
  remove "$X/objects/info"
  find "$X/refs" "$X/objects" ! -type f ! -type d -exec rm -f -- {} +
  find "$X/refs" -type f -size +8 -exec rm -f -- {} +
  find "$X/packed-refs" -prune -size +262144 -exec rm -f -- {} + 2>/dev/null
  # Locks of a git that was killed: this script has the writers' lock.
  find "$X/refs" \( -type l -o -name '*.lock' \) -exec rm -rf -- {} +
  find "$X/objects" \( -type l -o -name 'tmp_*' -o -name '*.lock' \) -exec rm -rf -- {} +
  if [ -d "$X/objects/pack" ]; then
    find "$X/objects/pack" -type f ! -name '*.pack' ! -name '*.idx' -exec rm -f -- {} +
  fi
  # By renames: another process may read the mirror, and an incomplete configuration is an error.
  e=$({ printf '%s' "$x_config" >"$X/config.new" && mv -f -- "$X/config.new" "$X/config" &&
    printf 'ref: refs/heads/%s\n' "${default:-none}" >"$X/HEAD.new" && mv -f -- "$X/HEAD.new" "$X/HEAD"; } 2>&1) || {
    # Another process removes the mirror.
    [ -d "$X" ] || return 1
    say CANNOT_CREATE "$e"
  }
}

# Makes the mirror anew from the origin. The clone has another name until it is complete.
make() {
  remove "$X"
  for f in "$X".new.*; do remove "$f"; done
  guard_disk "${X%/*}" "$min"
  n=$X.new.$$
  login
  limit "$clone_limit" git clone --quiet --bare --no-local --no-tags --template= ${H:+--depth="$H"} --no-single-branch -- "$url" "$n" >&2 || {
    rc=$?
    remove "$n"
    [ "$rc" != 124 ] || exit 98
    [ -d "${X%/*}" ] || exit 95
    exit 94
  }
  if [ -z "$H" ] && [ -e "$n/shallow" ]; then
    remove "$n"
    say ORIGIN_SHALLOW "$url is a shallow clone: it lacks a part of its history"
  fi
  { date +%s.$$ >"$n/made" && mv -- "$n" "$X" && tidy; } || {
    echo "another process removes the mirror" >&2
    exit 95
  }
}

from_origin() {
  login
  limit "$fetch_limit" git --git-dir="$X" fetch --quiet --force --no-tags --no-recurse-submodules --no-write-fetch-head \
    ${H:+--depth="$H"} "$@" >&2
}
