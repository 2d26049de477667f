"""A job that is one process with others below it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from farm import PATIENCE, TTL, kill_tree


class ProcessJob:
    """A process group whose log is a file. `status` turns its exit code into the product's words."""

    def __init__(
        self, command: list[str], env: dict[str, str], log: Path, cwd: Path, stop: signal.Signals, status: Callable[[int], str]
    ) -> None:
        self._log, self._stop, self._status = log, stop, status
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def cancel(self) -> None:
        """Signals the first process alone."""
        self.process.send_signal(self._stop)

    def kill(self) -> None:
        """Kills it and all below it."""
        kill_tree(self.process.pid)

    def wait(self) -> str:
        """Waits for its end."""
        return self._status(self.process.wait(timeout=PATIENCE + TTL))

    def log(self) -> str:
        """Both of its streams."""
        return self._log.read_text(errors="replace")


class LastLineJob(ProcessJob):
    """A double, whose last line is the status that the product would show."""

    def wait(self) -> str:
        """That status, or the end of a double that was killed."""
        ended = super().wait()
        return self.log().splitlines()[-1] if ended == "exit 0" else ended


def plain_status(code: int) -> str:
    """An exit code, or the signal that ended the process."""
    return f"exit {code}" if code >= 0 else f"killed ({signal.Signals(-code).name})"
