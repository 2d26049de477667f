# Repacks the mirror, if that is due and no other process uses it. Geometric steps rewrite the large pack seldom.
#
# Follows:   mirror.sh
# Arguments: those of mirror.sh.
# Exits:     0; 93, 127 (prelude.sh).
flock -n 8 || exit 0
flock -n 9 || exit 0
[ -d "$X" ] || exit 0
packs=$(find "$X/objects/pack" -name '*.pack' 2>/dev/null | wc -l)
loose=$(find "$X/objects"/?? -type f 2>/dev/null | wc -l)
[ "$packs" -ge 16 ] || [ "$loose" -ge 2000 ] || exit 0
tidy || exit 0
# Commits that are on no branch, and that no lease has wanted for 14 days.
find "$X/refs/wharfinger/want" -type f -mtime +14 -exec rm -f -- {} + 2>/dev/null
limit "$fetch_limit" nice -n 19 git --git-dir="$X" repack --quiet --geometric=2 -d >&2 || exit 0
m prune-packed --quiet >&2
exit 0
