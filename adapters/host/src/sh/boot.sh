# Prints what tells one life of a host's processes from the next, one KEY=VALUE a line.
#
# Arguments: none of its own.
# Prints:    boot_id; init: the namespace of process ids, the start of its first process in clock ticks since the boot, and the
#            number of systemd's soft reboots, which keep the boot id. A value is empty where it cannot be read.
# Changes:   nothing.
# Exits:     0, when it runs alone.
# shellcheck shell=sh
boot_id='' stat='' soft=''
{ read -r boot_id </proc/sys/kernel/random/boot_id; } 2>/dev/null
{ read -r stat </proc/1/stat; } 2>/dev/null
# shellcheck disable=SC2086 # Numbers.
first=$(set -- ${stat##*) } && echo "${20-}")
if [ -d /run/systemd/system ]; then soft=$(systemctl show --property SoftRebootsCount --value 2>/dev/null); fi
printf 'boot_id=%s\n' "$boot_id"
printf 'init=%s\n' "${first:+$(readlink /proc/self/ns/pid 2>/dev/null) $first $soft}"
