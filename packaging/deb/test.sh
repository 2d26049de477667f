#!/usr/bin/env bash
# Tries the Debian packages in a Debian 12 of their own: installed, upgraded, removed and purged; both after one another; lintian.
#
#   packaging/deb/test.sh PROGRAM      PROGRAM: the binary for both packages
#
# Needs root, debootstrap, lintian, dpkg-dev, groff-base, and a mirror of Debian once: the system is kept in cargo's folder as a tar file.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# = 1 ] || {
  sed -n '2,/^set/{/^#/p}' "$0" | cut -c3- >&2
  exit 2
}
program=$(realpath "$1")
# shellcheck source=scripts/needs.sh
. scripts/needs.sh
base=$(target_folder)/debian-12.tar
if [ ! -s "$base" ]; then
  echo "making a Debian 12 in $base (debootstrap; 350 MB)"
  made=$(mktemp -d)
  debootstrap --variant=minbase --include=adduser,openssh-client,git bookworm "$made" >"$made.log" 2>&1 || {
    tail -5 "$made.log" >&2
    exit 1
  }
  tar -C "$made" -cf "$base.part" . && mv "$base.part" "$base"
  rm -rf "$made" "$made.log"
fi

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
mkdir "$root" "$work/new"
tar -C "$root" -xf "$base"
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
step() { printf '%s\n' "-- $*"; }
# is WHAT COMMAND…: the command succeeds.
is() {
  local what=$1
  shift
  "$@" || {
    echo "test.sh: $what: not so ($*)" >&2
    exit 1
  }
}
isnt() {
  local what=$1
  shift
  ! "$@" || {
    echo "test.sh: $what: not so" >&2
    exit 1
  }
}
there() { [ -e "$root$1" ]; }

step "build"
# These are not downloaded.
export PACKAGE_COMPRESSION=none
server=$(packaging/deb/build.sh wharfinger "$program" "$work")
agent=$(packaging/deb/build.sh wharfinger-agent "$program" "$work")
newer=$(PACKAGE_VERSION=99.0 packaging/deb/build.sh wharfinger "$program" "$work/new")
again=$(packaging/deb/build.sh wharfinger "$program" "$work/new")
is "the same program makes the same package" cmp "$server" "$again"
cp "$server" "$agent" "$newer" "$root/tmp/"

step "lintian"
# No bug of Debian is closed by it, and its authors are no maintainers there.
lintian --fail-on error --suppress-tags uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball,initial-upload-closes-no-bugs,bogus-mail-host-in-debian-changelog,no-manual-page "$server" "$agent"

step "the manual pages"
for page in wharfinger wharfinger-run wharfinger-serve; do
  dpkg-deb --fsys-tarfile "$server" | tar -xO "./usr/share/man/man1/$page.1.gz" | gunzip | groff -ww -man -Tutf8 -P-cbou 2>&1 >"$work/page" | tee "$work/warnings"
  is "$page has no warnings of groff" [ ! -s "$work/warnings" ]
  is "$page has words" grep -qi synopsis "$work/page"
done

step "install"
in_root dpkg -i "/tmp/${server##*/}" >/dev/null
is "the program runs" in_root wharfinger --version
is "there is a user" in_root getent passwd wharfinger
is "the directory of the configuration is the group's to read" [ "$(in_root stat -c '%U:%G %a' /etc/wharfinger)" = "root:wharfinger 750" ]
isnt "there is a configuration already" there /etc/wharfinger/wharfinger.toml
is "the unit is there" there /usr/lib/systemd/system/wharfinger.service
is "the unit waits for a configuration" grep -q '^ConditionPathExists=/etc/wharfinger/wharfinger.toml$' "$root/usr/lib/systemd/system/wharfinger.service"
is "the unit runs the package's program" grep -q '^ExecStart=/usr/bin/wharfinger ' "$root/usr/lib/systemd/system/wharfinger.service"
is "the files are whole" [ -z "$(in_root dpkg -V wharfinger)" ]
in_root sh -c 'zcat /usr/share/doc/wharfinger/changelog.gz >/dev/null && cp /usr/share/doc/wharfinger/examples/wharfinger.example.toml /etc/wharfinger/wharfinger.toml'
echo 'WHARFINGER_LOG=debug' >>"$root/etc/default/wharfinger"
mkdir -p "$root/var/lib/wharfinger" && echo data >"$root/var/lib/wharfinger/wharfinger.db"

step "upgrade"
in_root dpkg -i "/tmp/${newer##*/}" >/dev/null
is "it is the newer one" [ "$(in_root dpkg-query -W -f '${Version}' wharfinger)" = 99.0 ]
is "settings of a person stay" grep -q '^WHARFINGER_LOG=debug$' "$root/etc/default/wharfinger"
is "the configuration stays" there /etc/wharfinger/wharfinger.toml

step "remove"
in_root dpkg -r wharfinger >/dev/null
isnt "the program stays" there /usr/bin/wharfinger
is "the configuration stays" there /etc/wharfinger/wharfinger.toml
is "settings stay" there /etc/default/wharfinger
is "the database stays" there /var/lib/wharfinger/wharfinger.db

step "purge"
in_root dpkg -P wharfinger >/dev/null
for gone in /etc/wharfinger /etc/default/wharfinger /var/lib/wharfinger; do isnt "$gone stays" there "$gone"; done

step "the agent's package, and the server's in its place"
in_root dpkg -i "/tmp/${agent##*/}" >/dev/null
is "the program runs" in_root wharfinger --version
isnt "the agent has a unit" there /usr/lib/systemd/system/wharfinger.service
isnt "the agent has a user of the server" there /etc/wharfinger
in_root dpkg -i "/tmp/${server##*/}" >/dev/null
isnt "the agent's package stays beside the server's" in_root dpkg -s wharfinger-agent >/dev/null 2>&1
is "the server's program runs" in_root wharfinger --version
echo "the packages are well"
