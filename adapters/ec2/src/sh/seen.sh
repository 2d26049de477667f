# Notes that a broker is there, whatever the metadata service says. A library in front of another script's text.
#
# Arguments: the service's address; the file that shows when a broker was last there ($WHARFINGER_SEEN takes its place).
# shellcheck shell=sh
touch "${WHARFINGER_SEEN:-$2}" 2>/dev/null
