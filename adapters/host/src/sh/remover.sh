# Empties the trash of a directory. Runs in the background, after sweep.sh.
#
# Arguments: the directory, absolute; how the names of the trash begin.
# Changes:   removes what is in the trash; writes and removes DIRECTORY/.wharfinger-remover.
# Exits:     0.
# shellcheck shell=sh disable=SC2115,SC2086
hosts=$1 trash=$2
trap '' HUP
{ echo $$ >"$hosts/.wharfinger-remover"; } 2>/dev/null
one=
rm -rf --one-file-system -- "${hosts:?}/${trash:?}" 2>/dev/null && one=--one-file-system

# Links are removed, never followed. Directories that their owner may not write (Go's module cache) are unlocked; what is
# mounted inside is left alone, and so is the tree around it.
remove() {
  rm -rf $one -- "$1" 2>/dev/null && return 0
  [ ! -L "$1" ] || return 1
  find "$1" -xdev -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
  rm -rf $one -- "$1" 2>/dev/null
}

# Again while it helps: another sweep may have added to it meanwhile, and counts on us.
more=yes
while [ -n "$more" ]; do
  more=
  for entry in "$hosts/$trash".*; do
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    case $entry in
    *.path)
      path=
      { IFS= read -r path <"$entry"; } 2>/dev/null
      left=
      case $path in
      /*/*)
        for there in "${path%/*}/$trash.${path##*/}".*; do
          [ -e "$there" ] || [ -L "$there" ] || continue
          remove "$there" || left=yes
        done
        ;;
      esac
      [ -n "$left" ] || { rm -f -- "$entry" && more=yes; }
      ;;
    *) remove "$entry" && more=yes ;;
    esac
  done
done
rm -f -- "$hosts/.wharfinger-remover"
