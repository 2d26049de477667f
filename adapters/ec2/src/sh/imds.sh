# Asks the metadata service of an instance. A library in front of another script's text.
#
# Arguments: the service's address. $WHARFINGER_IMDS replaces it on hosts outside of EC2.
# Exits:     1, the service gives no clear answer; 3, with the reason on standard error, curl is missing.
# shellcheck shell=sh
imds=${WHARFINGER_IMDS:-$1}
command -v curl >/dev/null 2>&1 || {
  echo 'curl is missing on the host' >&2
  exit 3
}
token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token") || exit 1

# Sets $body to the text at this path. Fails if the service has none.
get() {
  body=$(curl -s -m 2 -w '\n%{http_code}' -H "X-aws-ec2-metadata-token: $token" "$imds/latest/meta-data/$1") || exit 1
  code=${body##*
}
  body=${body%
*}
  case $code in 200) return 0 ;; 404) return 1 ;; *) exit 1 ;; esac
}
