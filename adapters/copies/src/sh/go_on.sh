# Goes on with the checkout, if the wanted commit is in the copy and its branches are the remote's: no fetch is needed then. Otherwise
# it ends here, and the broker decides.
#
# Follows:   normalise.sh, list_refs.sh
# Arguments: the wanted id, or empty for the wanted names of query_remote.sh; the two halves of the note around the commit, both empty
#            for no note; then those of rebuild.sh without the commit. It fills in the branch and the note.
# Prints:    "on" and a tab, if it goes on.
# Exits:     0, if it does not; 93, 127 (prelude.sh).
wanted=$1
found=$wanted branch='' many='' fresh='' is=''
while IFS=$tab read -r left name; do
  case $left in
  fresh) fresh=yes ;;
  commit) [ "$name" != "${found:-?}" ] || is=commit ;;
  have) ;;
  'ref: refs/heads/'*) [ "$name" != HEAD ] || branch=${left#ref: refs/heads/} ;;
  *)
    # The id of an object has the length of this copy's.
    [ "$name" != any ] || [ ${#left} = "$digits" ] || exit 0
    if [ -z "$wanted" ]; then
      case $newline$names$newline in
      *"$newline$name$newline"*)
        many=$many.
        found=$left
        # A tag is set by a fetch.
        case $name in refs/tags/*) exit 0 ;; esac
        ;;
      esac
    fi
    ;;
  esac
done <<END
$said
END
[ -n "$wanted" ] || [ "$many" = . ] || exit 0
[ "$fresh$is" = yescommit ] || exit 0
# Other names are checked by the broker.
if [ -n "$branch" ]; then
  case /$branch/ in *[!A-Za-z0-9._/-]* | */[.-]* | *[./]/* | *..* | *.lock/*) exit 0 ;; esac
fi
note=
[ -z "$2" ] || note=$2$found$3
shift 3
policy=$1 trust=$4
shift 6
set -- "$found" "$policy" gentle "$branch" "$trust" '' "$note" "$@"
# The checkout needs no credentials.
exec 6<&-
export GIT_CONFIG_GLOBAL=/dev/null
printf 'on\t\n'
