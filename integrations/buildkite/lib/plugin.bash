# shellcheck shell=bash
# The plugin's configuration, and the names of its request. Sourced by the hooks; needs the environment of a job.

# option NAME [DEFAULT]: prints an option of the plugin.
option() {
  local variable=BUILDKITE_PLUGIN_WHARFINGER_${1//-/_}
  variable=${variable^^}
  printf '%s' "${!variable:-${2:-}}"
}

# list NAME: prints an option that is a text or a list, one entry a line.
list() {
  local variable=BUILDKITE_PLUGIN_WHARFINGER_${1//-/_} entry i
  variable=${variable^^}
  [ -z "${!variable:-}" ] || printf '%s\n' "${!variable}"
  for ((i = 0; ; i++)); do
    entry=${variable}_$i
    [ -n "${!entry+set}" ] || break
    printf '%s\n' "${!entry}"
  done
}

# request_id, holder, work: the names of the request. A job that is retried has another id, and does the same work.
request_id() { printf 'bk-%s' "$BUILDKITE_JOB_ID"; }
holder() { printf '%s#%s' "$BUILDKITE_BUILD_URL" "$BUILDKITE_JOB_ID"; }
work() {
  local step=${BUILDKITE_STEP_KEY:-${BUILDKITE_LABEL:-$BUILDKITE_COMMAND}}
  option work "$BUILDKITE_PIPELINE_SLUG/$step${BUILDKITE_PARALLEL_JOB:+/$BUILDKITE_PARALLEL_JOB}@$BUILDKITE_COMMIT"
}

# program: prints the path of wharfinger.
program() { option program wharfinger; }

# connect: names the server in the environment, for each call of the program.
connect() {
  local server
  server=$(option server)
  [ -z "$server" ] || export WHARFINGER_SERVER=$server
}

# mistake TEXT: reports a mistake in the step, and ends the hook.
mistake() {
  printf 'wharfinger plugin: %s\n' "$1" >&2
  exit 2
}
