# Prepares this machine, as root; each step may be repeated.
#
# Follows:   the variables of the pool ($lib, $conf, $sudoers and others), which host_setup.rs writes.
# Arguments: none.
# Prints:    each file and user, and whether it was made or was there.
# Exits:     0; 1 with the reason on standard error.
# shellcheck shell=sh disable=SC2154
[ "$(id -u)" = 0 ] || {
  echo 'host-setup: run this as root' >&2
  exit 1
}
[ "$(uname -s)" = Linux ] || {
  echo 'host-setup: this is for Linux' >&2
  exit 1
}
fail() {
  printf 'host-setup: %s\n' "$1" >&2
  exit 1
}

# Writes standard input to a file, aside and by rename. Arguments: mode, file.
put() {
  cat >"$2.wharfinger-new"
  chmod "$1" "$2.wharfinger-new"
  if cmp -s "$2.wharfinger-new" "$2" 2>/dev/null; then
    rm -f "$2.wharfinger-new"
    chmod "$1" "$2"
    echo "as it was: $2"
  else
    mv -f "$2.wharfinger-new" "$2"
    echo "written:   $2"
  fi
}

# Root's, in directories of root's: nothing here can be changed by a holder.
mkdir -p "$lib"
chown root "$lib"
chmod 0755 "$lib"

# Makes a user that logs in by certificate alone: it has no password, and no key. Arguments: user, home.
make_user() {
  if id -u "$1" >/dev/null 2>&1; then
    at=$(awk -F : -v user="$1" '$1 == user { print $6 }' /etc/passwd)
    [ "$at" = "$2" ] || fail "there is a user $1 with the home $at already; choose another user in [pool.ssh.ca]"
    echo "as it was: user $1"
    return
  fi
  shell=/bin/sh
  [ ! -x /bin/bash ] || shell=/bin/bash
  useradd --system --user-group --no-create-home --home-dir "$2" --shell "$shell" --password '*' --comment 'wharfinger slot' "$1" ||
    fail "useradd cannot make the user $1"
  echo "made:      user $1"
}

# The users that the script `slot` knows: NAME HOME a line, with - for a user that keeps its home.
know_users() {
  touch "$lib/users"
  {
    awk -v mine=" $1 " '!index(mine, " " $1 " ")' "$lib/users"
    cat
  } | put 0644 "$lib/users"
}

# Jobs of cron and at would outlive a lease. Arguments: the users.
no_jobs() {
  for tool in cron at; do
    program=$tool
    [ $tool = at ] || program='crontab'
    if ! command -v $program >/dev/null 2>&1 || [ -e /etc/$tool.allow ]; then continue; fi
    touch /etc/$tool.deny
    for user in "$@"; do
      grep -qxF "$user" /etc/$tool.deny || echo "$user" >>/etc/$tool.deny
    done
  done
}

# Has sshd read the file $conf. A file that sshd does not take is taken away again.
serve() {
  sshd=$(command -v sshd || echo /usr/sbin/sshd)
  main=/etc/ssh/sshd_config
  if ! grep -qiE '^[[:space:]]*include[[:space:]]+(/etc/ssh/)?sshd_config\.d/\*' $main 2>/dev/null; then
    if ! grep -qxF "Include $conf" $main 2>/dev/null; then
      # Before any Match of the file.
      { echo "Include $conf" && cat $main 2>/dev/null; } | put 0644 $main
    fi
  fi
  mkdir -p /run/sshd
  if ! fault=$("$sshd" -t 2>&1); then
    rm -f "$conf"
    sed -i "\\|^Include $conf\$|d" $main
    fail "sshd does not take $conf, which was removed again: $fault"
  fi
  [ -z "${WHARFINGER_NO_RELOAD-}" ] || return 0
  if command -v systemctl >/dev/null 2>&1 && [ -d /run/systemd/system ]; then
    systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service 2>/dev/null || echo 'host-setup: reload sshd yourself' >&2
  elif [ -s /run/sshd.pid ]; then
    kill -s HUP "$(cat /run/sshd.pid)"
  else
    echo 'host-setup: reload sshd yourself' >&2
  fi
}

# The rules by which a user without root's rights runs `slot`. Standard input: the rules.
allow() {
  command -v sudo >/dev/null 2>&1 || {
    [ "$1" = wanted ] || return 0
    fail 'sudo is not there, and the broker does not log in as root'
  }
  (umask 077 && cat >"$sudoers.new")
  if ! visudo -cqf "$sudoers.new"; then
    rm -f "$sudoers.new"
    fail 'visudo does not take the rules'
  fi
  put 0440 "$sudoers" <"$sudoers.new"
  rm -f "$sudoers.new"
}
