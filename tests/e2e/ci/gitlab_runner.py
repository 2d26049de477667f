"""A double of GitLab Runner's custom executor, from the tables of its documentation: the stages in their order, the environment of
each, the exit codes, and how a job is ended. It reads one JSON object from standard input and writes one line for each stage.

  program, arguments     of config_exec, prepare_exec, run_exec and cleanup_exec: {"config": [...], ...}
  variables              of the job: passed on with the prefix CUSTOM_ENV_
  scripts                of the stages; a stage without one succeeds
  job                    the response of the coordinator, for JOB_RESPONSE_FILE

SIGUSR1 cancels the job: SIGTERM to the group of the stage, SIGKILL after 10 s, then cleanup. A SIGKILL ends only this process.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BUILD_FAILURE, SYSTEM_FAILURE = 1, 2
# Executor.Prepare is tried three times when it fails by the system.
PREPARATIONS = 3
BEFORE = ["prepare_script", "get_sources", "restore_cache", "download_artifacts", "step_script"]
AFTER_SUCCESS = ["after_script", "archive_cache", "upload_artifacts_on_success", "cleanup_file_variables"]
AFTER_FAILURE = ["after_script", "archive_cache_on_failure", "upload_artifacts_on_failure", "cleanup_file_variables"]

job = json.load(sys.stdin)
folder = tempfile.mkdtemp(prefix="runner-")
response = os.path.join(folder, "response.json")
code_file = os.path.join(folder, "exit_code")
with open(response, "w") as file:
    json.dump(job.get("job", {}), file)
environment = {
    **{name: value for name, value in os.environ.items() if not name.startswith("CUSTOM_ENV_")},
    **{"CUSTOM_ENV_" + name: value for name, value in job["variables"].items()},
    "BUILD_FAILURE_EXIT_CODE": str(BUILD_FAILURE),
    "SYSTEM_FAILURE_EXIT_CODE": str(SYSTEM_FAILURE),
    "BUILD_EXIT_CODE_FILE": code_file,
    "JOB_RESPONSE_FILE": response,
    "TMPDIR": folder,
}
child, cancelled = None, False


def say(**fields):
    print(json.dumps(fields), flush=True)


def end_group(name):
    try:
        os.killpg(child.pid, name)
    except ProcessLookupError:
        pass


def cancel(*_):
    global cancelled
    cancelled = True
    if child:
        end_group(signal.SIGTERM)
        signal.alarm(10)


signal.signal(signal.SIGUSR1, cancel)
signal.signal(signal.SIGALRM, lambda *_: end_group(signal.SIGKILL))


def call(stage, *more):
    """Runs one executable in a group of its own. Its output is the log of the job; that of config is its answer."""
    global child
    began = time.monotonic()
    child = subprocess.Popen(
        [job["program"], *job["arguments"][stage], *more],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if stage == "config" else sys.stderr,
        start_new_session=False,
        preexec_fn=os.setpgrp,
    )
    if cancelled and stage != "cleanup":
        end_group(signal.SIGTERM)
    out, _ = child.communicate()
    signal.alarm(0)
    say(stage=more[1] if stage == "run" else stage, code=child.returncode, seconds=round(time.monotonic() - began, 3))
    return child.returncode, out


def prepare():
    for _ in range(PREPARATIONS):
        code, out = call("config")
        if code == 0:
            answer = json.loads(out)
            say(answer=answer)
            environment.update(answer.get("job_env", {}))
            job["builds_dir"] = answer["builds_dir"]
            code, _ = call("prepare")
        if code != SYSTEM_FAILURE or cancelled:
            return code
    return code


def script(stage):
    """As the runner's Bash writer makes it: the script is an argument of eval, whose standard input is empty."""
    body = "export CI_JOB_STAGE=test\nset -e\nmkdir -p {0} && cd {0}\n{1}\n".format(
        shlex.quote(job["builds_dir"]), job["scripts"].get(stage, "true")
    )
    path = os.path.join(folder, "script." + stage)
    with open(path, "w") as file:
        file.write("#!/usr/bin/env bash\n\nset -eo pipefail\n: | eval %s\nexit 0\n" % shlex.quote(body))
    return call("run", path, stage)[0]


def status(code):
    if cancelled:
        return "canceled"
    return {0: "success", BUILD_FAILURE: "script_failure", SYSTEM_FAILURE: "runner_system_failure"}.get(code, "unknown_failure")


code = prepare()
if code == 0:
    for stage in BEFORE:
        code = script(stage)
        if code or cancelled:
            break
    if not cancelled:
        for stage in AFTER_FAILURE if code else AFTER_SUCCESS:
            script(stage)
call("cleanup")
os.remove(response)
written = open(code_file).read().strip() if os.path.exists(code_file) else None
say(status=status(code), exit_code=written)
shutil.rmtree(folder)
