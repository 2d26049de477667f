# Removes a submodule with its metadata.
#
# Arguments: none.
# Exits:     0; 93 (prelude.sh).
guard_resource
remove "$T"
remove "$M"
exit 0
