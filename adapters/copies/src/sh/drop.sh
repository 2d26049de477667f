# Removes a submodule, with what we note of it, when it is not worth mending.
guard_resource
remove "$T"
remove "$M"
exit 0
