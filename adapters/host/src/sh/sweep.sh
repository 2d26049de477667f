# Marks the directory of a resource that begins, and takes away what earlier resources of the same owner left. See sweep.rs.
#
# Follows:   cgroup.sh, processes.sh
# Arguments: the directory of the scratch directories, the resource that begins, its owner mark (one line), the text of
#            remover.sh.
# Prints:    swept, killed (counts), marked (yes or no), kept (directories that stay), one KEY=VALUE a line.
# Changes:   writes the owner mark; renames directories of earlier resources into the trash, ends their processes, removes their
#            control groups; starts remover.sh.
# Exits:     0; 3, processes outlive SIGKILL; 4, there is no usable /proc; 6, a process cannot be read and may be a live lease's.
# shellcheck shell=sh disable=SC2015,SC2012
hosts=$1 begins=$2 owner=$3 remover=$4
unset WHARFINGER_LEASE
trash=.wharfinger-trash
newline='
'

# Made by an earlier resource of this very owner? Ids sort by age. A link is never followed: it leads to a stranger's.
old=
for mark in "$hosts"/*.owner/mark; do
  beside=${mark%/mark}
  [ -f "$mark" ] && [ ! -L "$mark" ] && [ ! -L "$beside" ] || continue
  now=
  { IFS= read -r now <"$mark"; } 2>/dev/null
  [ "$now" = "$owner" ] || continue
  resource=${beside##*/}
  resource=${resource%.owner}
  case $resource in '' | "$begins" | *[!A-Za-z0-9_-]*) continue ;; esac
  printf '%s\n' "$resource" "$begins" | LC_ALL=C sort -c 2>/dev/null || continue
  old="$old $resource"
done

# shellcheck disable=SC2034 # For processes.sh.
dirs='' leases=' ' numbers='' since='' rival='' ended=0
know() {
  dirs="$dirs$1$newline"
  if [ -d "$1" ] && [ ! -L "$1" ]; then
    real=$(cd -P -- "$1" 2>/dev/null && pwd -P) || return 0
    [ "$real" = "$1" ] || dirs="$dirs$real$newline"
    for note in "$1"/.wharfinger/since.* "$1"/.wharfinger/over.* "$1/meta/since" "$1/meta/over" "$1"/copies/*/meta/since \
      "$1"/copies/*/meta/over; do
      since_note "$note"
    done
    for note in "$1/meta/lease" "$1"/copies/*/meta/lease; do
      [ -f "$note" ] && [ ! -L "$note" ] || continue
      leases="$leases$(sed -n 's/.*"lease":"\([A-Za-z0-9_-]*\)".*/\1/p' "$note" 2>/dev/null) "
    done
  fi
}
# Also what an earlier sweep, which was cut off, has renamed already.
know_all() {
  know "$1"
  for aside in "${1%/*}/$trash.${1##*/}".*; do
    if [ -d "$aside" ] && [ ! -L "$aside" ]; then know "$aside"; fi
  done
}

# Under another name in the same directory: one rename, however big the tree is, also on a full disk, and of a link
# it takes the link. A guarded command by the old path finds no fence there.
count=0 kept=
set_aside() {
  tries=0
  while [ -e "$1" ] || [ -L "$1" ]; do
    if [ $tries -ge 5 ]; then
      # Something is mounted there, say. Nothing must be started in it all the same.
      [ -L "$1" ] || rm -f -- "$1"/.wharfinger/fence.* "$1"/.wharfinger/since.* "$1/meta/fence" "$1/meta/since" 2>/dev/null
      kept="$kept $1"
      return 1
    fi
    tries=$((tries + 1))
    count=$((count + 1))
    aside=${1%/*}/$trash.${1##*/}.$$.$count
    if [ -e "$aside" ] || [ -L "$aside" ]; then continue; fi
    mv -- "$1" "$aside" 2>/dev/null && know "$aside"
  done
  return 0
}

# The copies of a resource that lie elsewhere, one path a line. The note is believed only as far as the copy agrees.
elsewhere() {
  for note in "$hosts/$1.owner"/copy.*; do
    [ -f "$note" ] && [ ! -L "$note" ] || continue
    path=
    { IFS= read -r path <"$note"; } 2>/dev/null
    case $path in /*/"${note##*/copy.}") printf '%s\n' "$path" ;; esac
  done
}
# Calls a function with each copy of a resource that lies elsewhere.
each_elsewhere() {
  while IFS= read -r path; do
    [ -z "$path" ] || "$2" "$path"
  done <<END
$(elsewhere "$1")
END
}
is_copy() {
  [ -d "$1" ] && [ ! -L "$1" ] && [ ! -L "$1/meta" ] && [ -f "$1/meta/marker" ] &&
    [ "$(head -c 200 "$1/meta/marker" 2>/dev/null)" = "${1##*/}" ]
}
set_copy_aside() {
  if is_copy "$1"; then set_aside "$1"; fi
}
each() {
  set_aside "$hosts/$1"
  each_elsewhere "$1" set_copy_aside
}

killed=0 swept=0
if [ -n "$old" ]; then
  need_proc
  for resource in $old; do
    know_all "$hosts/$resource"
    for note in "$hosts/$resource.owner"/lease.*; do
      [ -f "$note" ] && [ ! -L "$note" ] || continue
      lease='' number=''
      { read -r lease number <"$note"; } 2>/dev/null
      case $lease in '' | *[!A-Za-z0-9_-]*) ;; *) leases="$leases$lease " ;; esac
      case $number in '' | *[!0-9]*) ;; *) numbers="$numbers $number" ;; esac
    done
    each_elsewhere "$resource" know_all
  done
  # First the fences go, with the directories: nothing of an old lease is started any more. Then what runs is ended,
  # and then no process is left that could make a directory anew.
  for resource in $old; do each "$resource"; done
  contained=0
  end_group() {
    cg_end "$1"
    # shellcheck disable=SC2154
    contained=$((contained + cg_count))
  }
  end_copy_group() { end_group "$1/meta/fence"; }
  for resource in $old; do
    # By the names that they had.
    for note in "$hosts/$resource.owner"/lease.*; do
      [ -f "$note" ] || continue
      end_group "$hosts/$resource/.wharfinger/fence.${note##*.}"
    done
    for copy in "$hosts/$resource"/copies/* "$hosts/$trash.$resource".*/copies/*; do
      [ -d "$copy" ] || continue
      end_group "$hosts/$resource/copies/${copy##*/}/meta/fence"
    done
    each_elsewhere "$resource" end_copy_group
  done

  under() {
    while IFS= read -r dir; do
      [ -n "$dir" ] || continue
      case $1 in "$dir" | "$dir"/* | "$dir (deleted)") return 0 ;; esac
    done <<END
$dirs
END
    return 1
  }
  # A path may have any byte, a newline too, and so look like another process's line: what is found is looked at again.
  inside() {
    # shellcheck disable=SC2012
    ls -l /proc/[0-9]*/cwd /proc/[0-9]*/exe 2>/dev/null |
      sed -n 's|^.* /proc/\([0-9]*\)/[a-z]* -> |\1 |p' |
      while read -r pid path; do
        under "$path" || continue
        if under "$(readlink "/proc/$pid/cwd" 2>/dev/null)" || under "$(readlink "/proc/$pid/exe" 2>/dev/null)"; then echo "$pid"; fi
      done
  }
  # One look at all processes for those with any lease; only these are read.
  carriers() {
    if [ -n "$lists" ]; then
      grep -lz '^WHARFINGER_LEASE=' /proc/[0-9]*/environ 2>/dev/null
    else
      for file in /proc/[0-9]*/environ; do
        tr '\0' '\n' <"$file" 2>/dev/null | grep -q '^WHARFINGER_LEASE=' && echo "$file"
      done
    fi | while IFS=/ read -r _ _ pid _; do
      { tr '\0' '\n' <"/proc/$pid/environ"; } 2>/dev/null | while IFS= read -r line; do
        case $line in
        WHARFINGER_LEASE=*) case $leases in *" ${line#*=} "*)
          echo "$pid"
          break
          ;;
        esac ;;
        WHARFINGER_FENCE=*) if under "${line#*=}"; then
          echo "$pid"
          break
        fi ;;
        esac
      done
    done
  }
  marked() {
    {
      inside
      carriers
      for number in $numbers; do limited "$number"; done
    } | sort -u
  }
  # Directories that keep their names here are not swept: they are another entry's, whose leases are live.
  if [ -n "$since" ]; then
    rival_notes "$hosts"/*/.wharfinger/since.* "$hosts"/*/copies/*/meta/since
  fi
  end_all
  # shellcheck disable=SC2154
  killed=$((ended + contained))

  kept=
  for resource in $old; do
    was=$kept
    each "$resource"
    [ "$kept" = "$was" ] || continue
    # These notes lead to the trash elsewhere.
    for note in "$hosts/$resource.owner"/copy.*; do
      [ -f "$note" ] && [ ! -L "$note" ] || continue
      mv -f -- "$note" "$hosts/$trash.${note##*/copy.}.path" 2>/dev/null
    done
    rm -rf -- "$hosts/$resource.owner" 2>/dev/null
    swept=$((swept + 1))
  done
fi

# Emptied in the background, and here again if that was cut off. One at a time, or every attempt would add another.
found=
for entry in "$hosts/$trash".*; do
  if [ -e "$entry" ] || [ -L "$entry" ]; then
    found=yes
    break
  fi
done
if [ -n "$found" ]; then
  pid=
  { read -r pid <"$hosts/.wharfinger-remover"; } 2>/dev/null
  case $pid in
  '' | *[!0-9]*) ;;
  *) if grep -q wharfinger-remover "/proc/$pid/cmdline" 2>/dev/null; then found=; fi ;;
  esac
fi
if [ -n "$found" ]; then
  set -- /bin/sh -c "$remover" wharfinger-remover "$hosts" "$trash"
  if ionice -c 3 true 2>/dev/null; then set -- ionice -c 3 "$@"; fi
  if nice -n 19 true 2>/dev/null; then set -- nice -n 19 "$@"; fi
  if command -v setsid >/dev/null 2>&1; then set -- setsid "$@"; fi
  ("$@" </dev/null >/dev/null 2>&1 &)
fi

umask 022
here=$hosts/$begins.owner
marked=no
if mkdir -p -- "$here" 2>/dev/null && [ ! -L "$here" ] && printf '%s\n' "$owner" 2>/dev/null >"$here/mark.new" &&
  mv -f -- "$here/mark.new" "$here/mark" 2>/dev/null; then
  marked=yes
fi
printf 'swept=%s\nkilled=%s\nmarked=%s\nkept=%s\n' "$swept" "$killed" "$marked" "$kept"
