"""A double of the step `sh` of a Jenkins pipeline on an agent: runs one script. Arguments: FOLDER, the agent's; the script is FOLDER/script.

From BourneShellScript.java and FileMonitoringTask.java of the plugin durable-task, and ProcessTree.java of Jenkins:

* The script runs by `sh -xe` in the background, with JENKINS_SERVER_COOKIE in its environment. Its end is a number in a file, and its output is in another one;
  the step polls both. So the step goes on after a restart of the controller.
* A build that is aborted: each process of the machine whose environment has the cookie gets SIGTERM, and SIGKILL 5 s later (SoftKillWaitSeconds).

SIGTERM to this process is the user's button. The last line of its output is the status in words: `SUCCESS`, `FAILURE (script returned exit code N)`, `ABORTED`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

SOFT_KILL = 5.0
POLL = 0.1
WRAPPER = 'sh -xe "$1/script" >"$1/jenkins-log.txt" 2>&1; echo $? >"$1/result.tmp"; mv "$1/result.tmp" "$1/result"'


class Step:
    """One step, with variables beside those of the agent."""

    def __init__(self, folder: Path, variables: dict[str, str] | None = None) -> None:
        self.folder, self.cookie, self.variables = folder, f"durable-{uuid.uuid4().hex}", variables or {}
        self.aborted = False
        signal.signal(signal.SIGTERM, self._abort)

    def _abort(self, *_: object) -> None:
        self.aborted = True

    def _kill(self, number: signal.Signals) -> None:
        """Signals each process with the cookie."""
        wanted = f"JENKINS_SERVER_COOKIE={self.cookie}".encode()
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and wanted in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), number)
            except OSError:
                continue

    def run(self) -> int:
        """Runs it, prints its log, and returns the code of its script."""
        # The environment that the kernel shows of the wrapper is that of its start: it is not killed, and writes the result.
        command = ["sh", "-c", f'export JENKINS_SERVER_COOKIE="$2"; {WRAPPER}', "sh", str(self.folder), self.cookie]
        subprocess.Popen(command, env=dict(os.environ) | self.variables | {"JENKINS_SERVER_COOKIE": "please-do-not-kill-me"}, stdin=subprocess.DEVNULL, start_new_session=True)
        result, kill_at = self.folder / "result", 0.0
        while not result.exists():
            if self.aborted and not kill_at:
                self._kill(signal.SIGTERM)
                kill_at = time.monotonic() + SOFT_KILL
            elif kill_at and time.monotonic() > kill_at:
                self._kill(signal.SIGKILL)
            time.sleep(POLL)
        print((self.folder / "jenkins-log.txt").read_text(errors="replace"), flush=True)
        return int(result.read_text())


def status(step: Step, code: int) -> str:
    """The status of a build that ends with this step."""
    if step.aborted:
        return "ABORTED"
    return f"FAILURE (script returned exit code {code})" if code else "SUCCESS"


if __name__ == "__main__":
    only = Step(Path(sys.argv[1]))
    print(status(only, only.run()), flush=True)
