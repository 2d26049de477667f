# Clones into $1 (a name beside the notes) from $2, which is the origin or the host's mirror of it; $3: the lock of who
# reads the mirror, or empty. Prints the object format. Objects are never shared with where they come from: a holder could
# spoil them there. And they come by a transport and not as files: so each of them is hashed.
have_git
far_end
new=$N/$1 from=$2
if [ -z "$3" ]; then
  login
else
  exec 9>>"$3" && flock -s 9 || exit 1
fi
cd / || exit 1
git clone --quiet --no-checkout --no-local --no-tags --template= ${H:+--depth="$H"} --no-single-branch --origin origin -- "$from" "$new" >&2 || exit 1
git --git-dir="$new/.git" rev-parse --show-object-format
