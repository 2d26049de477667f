"""A double of the Buildkite agent: runs one job with one plugin. Arguments: FOLDER of the plugin; the job is the environment.

From https://buildkite.com/docs/agent/hooks, https://buildkite.com/docs/agent/lifecycle and the agent's sources:

* The hooks of a plugin run in the order of HOOKS. Each is sourced by a wrapper. If the hook returns, its exported variables are those of the
  hooks after it; if it exits or is killed, they are not.
* Without a hook `command` of a plugin the agent would run the command itself; this double refuses.
* A cancelled job: the process group of the hook that runs gets SIGTERM, and SIGKILL after the grace period of 10 s. Hooks that clean up run
  afterwards, unless the command had to be killed.
* The job fails if a hook before or at `command` fails; `pre-exit` runs all the same.

SIGTERM to this process is the user's button. The last line of its output is the status in words: `passed`, `failed (exit N)`, `canceled`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HOOKS = ("environment", "pre-command", "command", "post-command", "pre-exit")
GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL: the default of cancel-grace-period."""
WRAPPER = '. "$1"\nstatus=$?\nenv -0 >"$2"\nexit $status\n'


class Agent:
    """One job."""

    def __init__(self, plugin: Path) -> None:
        self.plugin, self.env = plugin, dict(os.environ)
        self.running: subprocess.Popen[bytes] | None = None
        self.canceled = self.killed = False
        signal.signal(signal.SIGTERM, self._cancel)

    def _cancel(self, *_: object) -> None:
        self.canceled = True
        if self.running is not None:
            os.killpg(self.running.pid, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, GRACE)
            signal.signal(signal.SIGALRM, self._kill)

    def _kill(self, *_: object) -> None:
        if self.running is not None:
            self.killed = True
            os.killpg(self.running.pid, signal.SIGKILL)

    def hook(self, name: str) -> int:
        """Runs a hook of the plugin, if it has one. Returns its exit code, or -n after signal n."""
        path = self.plugin / "hooks" / name
        if not path.exists():
            return 0
        with tempfile.NamedTemporaryFile() as after:
            command = ["bash", "-c", WRAPPER, "bash", str(path), after.name]
            self.running = subprocess.Popen(command, env=self.env, start_new_session=True)
            code = self.running.wait()
            self.running = None
            signal.setitimer(signal.ITIMER_REAL, 0)
            if variables := after.read():
                self.env = dict(pair.split("=", 1) for pair in variables.decode().split("\0") if "=" in pair)
        return code

    def run(self) -> str:
        """Runs the job and returns its status."""
        if not (self.plugin / "hooks/command").exists():
            raise FileNotFoundError(f"{self.plugin} has no hook command")
        code = 0
        for name in HOOKS[:-1]:
            ended = self.hook(name)
            if name == "command":
                self.env["BUILDKITE_COMMAND_EXIT_STATUS"] = str(ended)
            code = code or ended
            if self.canceled or (ended and name != "command"):
                break
        if not self.killed:
            self.hook("pre-exit")
        if self.canceled:
            return "canceled"
        return f"failed (exit {code})" if code else "passed"


if __name__ == "__main__":
    status = Agent(Path(sys.argv[1])).run()
    print(status, flush=True)
