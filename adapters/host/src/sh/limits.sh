# Prints whether the kernel acted for the limits of a lease, one KIND=VALUE HITS a line: memory (bytes; processes ended for it),
# cpu (thousandths of a processor; 0), pids (processes; forks refused for it). Nothing where no limits are set.
#
# Follows:   cgroup.sh
# Arguments: the fence.
# Changes:   nothing.
# Exits:     0.
# shellcheck shell=sh
cg_report "${1%/*}/cgroup${1##*/fence}"
