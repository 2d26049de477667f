# Clones a repository without a checkout. Objects come over a transport, which hashes each of them. They are never shared: a holder
# could damage them in their other place.
#
# Follows:   credentials.sh
# Arguments: a name for the new clone, beside the metadata; the origin, or the host's mirror of it; the lock of the mirror's
#            readers, or empty.
# Input:     credentials (credentials.sh), if there is no lock.
# Prints:    the object format.
# Exits:     0; 1, the clone failed, with git's reason on standard error; 127 (prelude.sh).
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
