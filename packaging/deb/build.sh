#!/usr/bin/env bash
# Makes the Debian packages: wharfinger (the server, and the whole command line) and wharfinger-agent (the command line of build agents).
#
#   packaging/deb/build.sh PACKAGE PROGRAM OUT     PACKAGE: wharfinger or wharfinger-agent; PROGRAM: the binary; OUT: a directory
#
# PACKAGE_COMPRESSION: xz without it. PACKAGE_VERSION sets another version than Cargo.toml's, for tests of upgrades. SOURCE_DATE_EPOCH: the time of all files; the time of the
# last commit without it, so that the same program makes the same package. Needs dpkg-dev and gzip.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# = 3 ] || {
  sed -n '2,/^set/{/^#/p}' "$0" | cut -c3- >&2
  exit 2
}
package=$1 program=$(realpath "$2") out=$(realpath "$3")
case $package in wharfinger | wharfinger-agent) ;; *) echo "build.sh: $package is neither wharfinger nor wharfinger-agent" >&2 && exit 2 ;; esac
[ -x "$program" ] || { echo "build.sh: $program is no program" >&2 && exit 1; }
version=${PACKAGE_VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
[ -n "$version" ] || { echo "build.sh: Cargo.toml has no version" >&2 && exit 1; }
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
architecture=$(dpkg --print-architecture)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
doc=$root/usr/share/doc/$package
install -d -m 755 "$root/DEBIAN" "$root/usr/bin" "$root/usr/share/man/man1" "$doc"
install -m 755 "$program" "$root/usr/bin/wharfinger"
strip --strip-unneeded --remove-section=.comment "$root/usr/bin/wharfinger"

# Manual pages and completions are the program's own.
"$program" man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*.1
install -d -m 755 "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d"
"$program" completions bash >"$root/usr/share/bash-completion/completions/wharfinger"
"$program" completions zsh >"$root/usr/share/zsh/vendor-completions/_wharfinger"
"$program" completions fish >"$root/usr/share/fish/vendor_completions.d/wharfinger.fish"

cat >"$doc/copyright" <<EOF
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: wharfinger
Source: https://github.com/wharfinger/wharfinger

Files: *
Copyright: 2026 the authors of Wharfinger
License: Apache-2.0
 On Debian systems, the text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
EOF
printf '%s (%s) stable; urgency=medium\n\n  * See CHANGELOG.md of the sources.\n\n -- Wharfinger <maintainers@wharfinger.invalid>  %s\n' \
  "$package" "$version" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"

if [ "$package" = wharfinger ]; then
  install -d -m 755 "$root/usr/lib/systemd/system" "$doc/examples"
  # The unit starts once there is a configuration, and not before.
  sed -e 's|/usr/local/bin/wharfinger|/usr/bin/wharfinger|' -e '/^# One server\. Copy/d' \
    -e 's|^After=.*|&\nConditionPathExists=/etc/wharfinger/wharfinger.toml|' deploy/wharfinger.service >"$root/usr/lib/systemd/system/wharfinger.service"
  install -m 644 deploy/wharfinger-local.conf wharfinger.example.toml "$doc/examples"
  # Settings for the unit that a person changes: kept over upgrades, as each file below /etc.
  install -d -m 755 "$root/etc/default" && install -d -m 750 "$root/etc/wharfinger"
  install -m 644 packaging/deb/default "$root/etc/default/wharfinger"
  sed -i 's|^ExecStart=.*|EnvironmentFile=-/etc/default/wharfinger\n&|' "$root/usr/lib/systemd/system/wharfinger.service"
  echo /etc/default/wharfinger >"$root/DEBIAN/conffiles"
  for script in postinst prerm postrm; do install -m 755 "packaging/deb/$script" "$root/DEBIAN/$script"; done
  depends="adduser, openssh-client, git"
  relations=$'Provides: wharfinger-agent\nConflicts: wharfinger-agent\nReplaces: wharfinger-agent\n'
  summary="broker that leases build infrastructure (server)"
  long=" Leases EC2 spot instances, SSH hosts and git working copies, and breaks a
 lease at once when its resource dies. This package has the server, its unit,
 and the whole command line."
else
  depends="openssh-client"
  relations=$'Conflicts: wharfinger\nReplaces: wharfinger\n'
  summary="broker that leases build infrastructure (build agents)"
  long=" The command line of build agents: runs work on leased hosts and in leased
 working copies, and runs it again elsewhere when a host dies. It has no
 server."
fi
# The libraries that the program needs, by their packages.
mkdir -p "$work/debian" && printf 'Source: wharfinger\n\nPackage: %s\nArchitecture: any\n' "$package" >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O "$root/usr/bin/wharfinger" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
[ -n "$libraries" ] || { echo "build.sh: dpkg-shlibdeps found no libraries" >&2 && exit 1; }
{
  printf 'Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Wharfinger <maintainers@wharfinger.invalid>\n' "$package" "$version" "$architecture"
  printf 'Installed-Size: %s\nDepends: %s, %s\nRecommends: ca-certificates\n%s' "$(du -sk --apparent-size "$root" | cut -f1)" "$libraries" "$depends" "$relations"
  printf 'Section: devel\nPriority: optional\nHomepage: https://github.com/wharfinger/wharfinger\nDescription: %s\n%s\n' "$summary" "$long"
} >"$root/DEBIAN/control"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)

find "$root" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0r touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
file=$out/${package}_${version}_$architecture.deb
dpkg-deb --root-owner-group "-Z${PACKAGE_COMPRESSION:-xz}" --build "$root" "$file" >/dev/null
printf '%s\n' "$file"
