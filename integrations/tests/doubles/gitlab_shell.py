"""A double of gitlab-runner with the shell executor, and of GitLab's `retry`: runs one job. Argument: FILE, the job as JSON.

The job: `variables`, `script` (a list of lines), `retry` (`max`, `when`, `exit_codes`). From docs/executors/shell.md and executors/shell/shell.go of gitlab-runner, and
GitLab's reference of `retry`:

* The script is one program for bash, on its standard input. Its environment is the runner's, with the variables of the job.
* The job ends with the exit code of the first line that fails.
* A job that is cancelled: the process group of bash gets SIGTERM, and SIGKILL 10 s later.
* GitLab queues a job again, with another id, if `when` and `exit_codes` of `retry` both fit.

SIGTERM to this process is the user's button. The last line of its output is the status in words: `success`, `failed (exit N)`, `canceled`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

GRACE = 10.0


class Runner:
    """One job; again and again if GitLab says so."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.canceled = job, False
        self.running: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, self._cancel)
        signal.signal(signal.SIGALRM, self._kill)

    def _cancel(self, *_: object) -> None:
        self.canceled = True
        if self.running is not None:
            os.killpg(self.running.pid, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _kill(self, *_: object) -> None:
        if self.running is not None:
            os.killpg(self.running.pid, signal.SIGKILL)

    def once(self, number: int) -> int:
        """Runs the script once, and returns its exit code."""
        variables = self.job["variables"]
        env = dict(os.environ) | variables | {"CI_JOB_ID": str(int(variables["CI_JOB_ID"]) + number)}
        script = "set -eo pipefail\n" + "".join(f"{line}\n" for line in self.job["script"])
        # The whole script is in memory before a line of it runs, so that a command cannot read the rest.
        command = ["bash", "-c", 'eval "$(cat)"']
        self.running = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, start_new_session=True)
        self.running.communicate(script.encode())
        code, self.running = self.running.returncode, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        return code

    def all(self) -> str:
        """Runs the job as often as its `retry` says, and returns its status."""
        retry = self.job.get("retry") or {}
        for number in range(retry.get("max", 0) + 1):
            code = self.once(number)
            if self.canceled:
                return "canceled"
            if code == 0:
                return "success"
            if "script_failure" not in retry.get("when", []) or code not in retry.get("exit_codes", [code]):
                break
            print(f"GitLab queues the job again: exit {code}", flush=True)
        return f"failed (exit {code})"


if __name__ == "__main__":
    print(Runner(json.loads(Path(sys.argv[1]).read_text())).all(), flush=True)
