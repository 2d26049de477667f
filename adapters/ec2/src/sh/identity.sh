# Prints the instance's id.
#
# Follows:   imds.sh
# Arguments: the service's address.
# Prints:    the id, without a newline.
# Exits:     0; as imds.sh.
# shellcheck shell=sh disable=SC2154
get instance-id && printf '%s' "$body"
