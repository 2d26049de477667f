# Prints the state of an instance's first boot, as first_contact.sh writes it.
#
# Arguments: none.
# Reads:     $WHARFINGER_ROOT stands for / on hosts outside of EC2.
# Exits:     0; otherwise the first boot has not come so far.
# shellcheck shell=sh
cat "${WHARFINGER_ROOT:-}/run/wharfinger-boot/state"
