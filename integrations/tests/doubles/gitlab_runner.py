"""A double of gitlab-runner with the custom executor, and of GitLab's `retry`: runs one job. Argument: FILE, the job as JSON.

The job: `custom` (the table `[runners.custom]` of config.toml), `variables` (of the job, without their prefix), `repository`, `script`, `retry` (`max`,
`when`). From docs/executors/custom.md, executors/custom/*.go and common/build.go of gitlab-runner:

* Stages in the order `config_exec`, `prepare_exec`, `run_exec` for each of SUB_STAGES that has a script, `cleanup_exec`. All have the same environment: the
  runner's, TMPDIR, the two exit codes, BUILD_EXIT_CODE_FILE, JOB_RESPONSE_FILE, `job_env` of config, and the variables of the job behind `CUSTOM_ENV_`.
* config and prepare are tried three times, three seconds apart, with a `cleanup_exec` after each failure; not after a build failure.
* Exit code 1 is a build failure, 2 a system failure, and any other an unknown failure, which counts as one of the system.
* After a failure of `prepare_script` no other script runs. After one in a later script up to build_script, `after_script`, and the scripts for a failure, are run.
* A job that is cancelled: the process group of the driver gets SIGTERM, and SIGKILL after `graceful_kill_timeout`; then `cleanup_exec` follows.
* The result of `cleanup_exec` is of no consequence.
* GitLab queues a job again, with another id, as `retry` says.

SIGTERM to this process is the user's button. The last line of its output is the status in words: `success`, `failed (script_failure)`, `failed
(runner_system_failure)`, `canceled`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TRIES, PAUSE = 3, 3.0
BUILD_FAILURE, SYSTEM_FAILURE = 1, 2
SUB_STAGES = (
    "prepare_script", "get_sources", "restore_cache", "download_artifacts", "build_script",
    "after_script", "archive_cache", "archive_cache_on_failure", "upload_artifacts_on_success", "upload_artifacts_on_failure", "cleanup_file_variables",
)  # fmt: skip


class Failure(Exception):
    """A stage failed. `system`: through no fault of the script."""

    def __init__(self, stage: str, code: int) -> None:
        super().__init__(f"{stage} ended with {code}")
        self.system = code != BUILD_FAILURE


class Canceled(Exception):
    """The user has cancelled the job."""


class Runner:
    """One job of one runner; again and again if GitLab says so."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.canceled = job, False
        self.running: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, self._cancel)

    def _cancel(self, *_: object) -> None:
        self.canceled = True
        if self.running is not None:
            os.killpg(self.running.pid, signal.SIGTERM)
            signal.signal(signal.SIGALRM, self._kill)
            signal.setitimer(signal.ITIMER_REAL, self.job["custom"].get("graceful_kill_timeout", 600))

    def _kill(self, *_: object) -> None:
        if self.running is not None:
            os.killpg(self.running.pid, signal.SIGKILL)

    def _call(self, stage: str, *args: str, out: Any = None) -> int | None:
        """Calls an executable of the driver; None if it has none for this stage."""
        custom = self.job["custom"]
        if f"{stage}_exec" not in custom:
            return None
        command = [custom[f"{stage}_exec"], *custom.get(f"{stage}_args", []), *args]
        self.running = subprocess.Popen(command, env=self.env, cwd=self.folder, stdout=out, stdin=subprocess.DEVNULL, start_new_session=True)
        code = self.running.wait()
        self.running = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        return code

    def _must(self, name: str, code: int | None) -> None:
        if self.canceled:
            raise Canceled
        if code:
            raise Failure(name, code)

    def _prepare(self) -> None:
        with tempfile.TemporaryFile() as out:
            self._must("config_exec", self._call("config", out=out))
            out.seek(0)
            text = out.read()
        config = json.loads(text) if text else {}
        self.env |= config.get("job_env") or {}
        self.builds_dir = config.get("builds_dir") or "/builds"
        self._must("prepare_exec", self._call("prepare"))

    def _scripts(self, failed: bool) -> dict[str, str]:
        """The scripts that the runner would generate; a stage without one is not called."""
        project = shlex.quote(f"{self.builds_dir}/{self.job['variables']['CI_PROJECT_PATH']}")
        head = "set -eo pipefail\n"
        return {
            "prepare_script": f'{head}echo "Running on $(hostname)..."\n',
            "get_sources": (
                f"{head}mkdir -p {project}\ncd {project}\n[ -d .git ] || git init -q .\n"
                f"git fetch -q {shlex.quote(self.job['repository'])} {shlex.quote(self.job['variables']['CI_COMMIT_SHA'])}\n"
                "git checkout -q -f --detach FETCH_HEAD\n"
            ),
            "build_script": f"{head}cd {project}\n{self.job['script']}\n",
            "after_script": f"{head}cd {project}\necho after\n",
            "upload_artifacts_on_failure" if failed else "upload_artifacts_on_success": f"{head}cd {project}\necho artifacts\n",
            "cleanup_file_variables": f"{head}true\n",
        }  # fmt: skip

    def _run(self) -> None:
        failure: Failure | None = None
        for stage in SUB_STAGES:
            early = SUB_STAGES.index(stage) <= SUB_STAGES.index("build_script")
            script = self._scripts(failure is not None).get(stage)
            if script is None or (early and failure is not None):
                continue
            path = Path(tempfile.mkdtemp(prefix="script", dir=self.folder)) / "script."
            # As the runner writes it: what the script calls has an empty standard input.
            path.write_text(f"#!/usr/bin/env bash\n\nset -eo pipefail\n: | eval {shlex.quote(script)}\nexit 0\n")
            path.chmod(0o700)
            begun = time.monotonic()
            code = self._call("run", str(path), stage)
            print(f"stage {stage}: {code} after {time.monotonic() - begun:.1f} s", flush=True)
            try:
                self._must(stage, code)
            except Failure as problem:
                if stage == "prepare_script":
                    raise
                failure = failure or (problem if early else None)
        if failure is not None:
            raise failure

    def once(self, number: int) -> str:
        """Runs the job once, and returns its status."""
        with tempfile.TemporaryDirectory(prefix="custom-executor") as folder:
            self.folder = folder
            variables = self.job["variables"] | {"CI_JOB_ID": str(int(self.job["variables"]["CI_JOB_ID"]) + number)}
            response, code_file = Path(folder, "response.json"), Path(folder, "exit_code")
            try:
                for attempt in range(1, TRIES + 1):
                    response.write_text(json.dumps({"id": int(variables["CI_JOB_ID"])}))
                    self.env = dict(os.environ) | {
                        "TMPDIR": folder, "BUILD_FAILURE_EXIT_CODE": str(BUILD_FAILURE), "SYSTEM_FAILURE_EXIT_CODE": str(SYSTEM_FAILURE),
                        "BUILD_EXIT_CODE_FILE": str(code_file), "JOB_RESPONSE_FILE": str(response),
                    } | {f"CUSTOM_ENV_{name}": value for name, value in variables.items()}  # fmt: skip
                    try:
                        self._prepare()
                        break
                    except Failure as problem:
                        self._call("cleanup")
                        print(f"preparation failed: {problem}", flush=True)
                        if not problem.system or attempt == TRIES:
                            raise
                        time.sleep(PAUSE)
                try:
                    self._run()
                finally:
                    self._call("cleanup")
            except Canceled:
                return "canceled"
            except Failure as problem:
                print(problem, flush=True)
                if code_file.exists():
                    print(f"exit code of the job: {code_file.read_text().strip()}", flush=True)
                return "failed (runner_system_failure)" if problem.system else "failed (script_failure)"
            return "success"

    def all(self) -> str:
        """Runs it as often as `retry` of the job says."""
        retry = self.job.get("retry") or {}
        for number in range(retry.get("max", 0) + 1):
            status = self.once(number)
            if not any(f"({when})" in status for when in retry.get("when", [])):
                break
            print(f"GitLab queues the job again: {status}", flush=True)
        return status


if __name__ == "__main__":
    print(Runner(json.loads(Path(sys.argv[1]).read_text())).all(), flush=True)
