#!/usr/bin/env bats
# The hooks with a double of `wharfinger` that notes how it was called.

setup() {
  folder=$BATS_TEST_TMPDIR hooks=$BATS_TEST_DIRNAME/../hooks
  mkdir -p "$folder/bin" "$folder/plugin"
  cat >"$folder/bin/wharfinger" <<'DOUBLE'
#!/bin/bash
printf '%s\n' "$@" >>"$NOTES/arguments"
printf '%s\n' "$WHARFINGER_SERVER|$WHARFINGER_CI|$WHARFINGER_CANCEL_GRACE" >>"$NOTES/environment"
case $1 in
--json) cat "$NOTES/leases" 2>/dev/null ;;
run) [ ! -e "$NOTES/result" ] || cp "$NOTES/result" "$WHARFINGER_RESULT" ;;
esac
exit "$(cat "$NOTES/code" 2>/dev/null || echo 0)"
DOUBLE
  cat >"$folder/bin/buildkite-agent" <<'DOUBLE'
#!/bin/bash
printf '%s ' "$@" >>"$NOTES/annotation"
cat >>"$NOTES/annotation"
DOUBLE
  chmod +x "$folder"/bin/*
  export PATH=$folder/bin:$PATH NOTES=$folder WHARFINGER_PLUGIN_FOLDER=$folder/plugin
  export BUILDKITE_JOB_ID=0193-aa BUILDKITE_BUILD_URL=https://buildkite.com/acme/web/builds/7 BUILDKITE_PIPELINE_SLUG=web BUILDKITE_STEP_KEY=test
  export BUILDKITE_COMMIT=c0ffee BUILDKITE_BRANCH=main BUILDKITE_COMMAND='make "test"'
  export BUILDKITE_PLUGIN_WHARFINGER_POOL=copies BUILDKITE_PLUGIN_WHARFINGER_SERVER=h:1
}

@test "the command is one argument as it is, and the request has the names of the job" {
  run "$hooks/command"
  [ "$status" = 0 ]
  diff "$folder/arguments" - <<'END'
run
--request-id=bk-0193-aa
--holder=https://buildkite.com/acme/web/builds/7#0193-aa
--work=web/test@c0ffee
--pool=copies
--commit=c0ffee
--
sh
-e
-c
make "test"
END
  [ "$(cat "$folder/environment")" = "h:1|auto|5s" ]
}

@test "lists and texts are both taken, and each becomes one argument" {
  export BUILDKITE_PLUGIN_WHARFINGER_LABELS=os=linux BUILDKITE_PLUGIN_WHARFINGER_ENV_0='A=two words' BUILDKITE_PLUGIN_WHARFINGER_ENV_1='B=$(id)'
  export BUILDKITE_PLUGIN_WHARFINGER_OPTIONS_0=--priority=5 BUILDKITE_PLUGIN_WHARFINGER_FETCH_0='out/*.xml' BUILDKITE_PLUGIN_WHARFINGER_QUEUE_FOR=10m
  run "$hooks/command"
  [ "$status" = 0 ]
  for argument in --label=os=linux '--env=A=two words' '--env=B=$(id)' --priority=5 '--fetch=out/*.xml' --queue-for=10m; do
    grep -qxF -- "$argument" "$folder/arguments"
  done
}

@test "a job of a parallel step does work of its own, and a retried job the same" {
  BUILDKITE_PARALLEL_JOB=3 run "$hooks/command"
  grep -qxF -- --work=web/test/3@c0ffee "$folder/arguments"
  BUILDKITE_JOB_ID=0194-bb run "$hooks/command"
  grep -qxF -- --request-id=bk-0194-bb "$folder/arguments"
  grep -qxF -- --work=web/test@c0ffee "$folder/arguments"
}

@test "a build of HEAD takes the tip of its branch, and a pool of hosts nothing" {
  BUILDKITE_COMMIT=HEAD run "$hooks/command"
  grep -qxF -- --branch=main "$folder/arguments"
  rm "$folder/arguments"
  BUILDKITE_PLUGIN_WHARFINGER_CHECKOUT=none run "$hooks/command"
  ! grep -q -- '--commit\|--branch' "$folder/arguments"
}

@test "a mistake in the step is refused before anything is leased" {
  BUILDKITE_PLUGIN_WHARFINGER_POOL='' run "$hooks/command"
  [ "$status" = 2 ]
  [[ $output == *"neither pool nor labels"* ]]
  BUILDKITE_COMMAND='' run "$hooks/command"
  [ "$status" = 2 ]
  BUILDKITE_PLUGIN_WHARFINGER_CHECKOUT=tag run "$hooks/command"
  [ "$status" = 2 ]
  [ ! -e "$folder/arguments" ]
}

@test "the exit code passes, and the annotation says whose fault it was without believing the host" {
  echo 3 >"$folder/code"
  printf '{"fault":"RESOURCE","fault_detail":"<script>x</script>","ended":"command","attempts":[{}],"why":"wharfinger why lse_1"}' >"$folder/result"
  run "$hooks/command"
  [ "$status" = 3 ]
  grep -qF -- '--context wharfinger-0193-aa' "$folder/annotation"
  grep -qF 'Whose fault: RESOURCE</b> &lt;script&gt;' "$folder/annotation"
}

@test "a success makes no annotation" {
  printf '{"fault":"NONE"}' >"$folder/result"
  run "$hooks/command"
  [ "$status" = 0 ]
  [ ! -e "$folder/annotation" ]
}

@test "pre-exit releases each lease that is left, and removes the folder" {
  printf '{\n  "leases": [\n    {\n      "id": "lse_1a",\n      "group_id": "lse_9"\n    },\n    {\n      "id": "lse_2b"\n    }\n  ]\n}\n' >"$folder/leases"
  run "$hooks/pre-exit"
  [ "$status" = 0 ]
  grep -qxF 'https://buildkite.com/acme/web/builds/7#0193-aa' "$folder/arguments"
  [ "$(grep -c -x release "$folder/arguments")" = 2 ]
  ! grep -qxF lse_9 "$folder/arguments"
  [ ! -e "$folder/plugin" ]
}

@test "pre-exit never fails the job" {
  echo 69 >"$folder/code"
  run "$hooks/pre-exit"
  [ "$status" = 0 ]
  [[ $output == *"ends by its TTL"* ]]
}
