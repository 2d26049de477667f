#!/bin/sh
# The work of the seven cases, in a working copy. Argument: the folder in which the test and the work meet.
# Notes each attempt in `attempts`, a line each: time, lease, address of the host, path of the lease. The first attempt does what `mode` says.
set -u
control=$1
address=${SSH_CONNECTION:-none none none}
address=${address#* * }
printf '%s %s %s %s\n' "$(date +%s.%N)" "$WHARFINGER_LEASE" "${address%% *}" "$WHARFINGER_PATH" >>"$control/attempts"
if [ "$(wc -l <"$control/attempts")" = 1 ]; then
  case $(cat "$control/mode") in
  fail)
    echo "2 tests failed"
    exit 3
    ;;
  wait)
    while [ ! -e "$control/go" ]; do
      git rev-parse HEAD >/dev/null || exit 1
      sleep 0.1
    done
    ;;
  esac
fi
mkdir -p out
echo "made on $WHARFINGER_LEASE" >out/report.txt
echo "all is well"
