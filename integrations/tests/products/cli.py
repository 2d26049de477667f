"""No CI product: `wharfinger run`, as make, cron or a script starts it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from products.process import ProcessJob, plain_status
from farm import Farm


class RunJob(ProcessJob):
    """`wharfinger run` with a result file."""

    def __init__(self, command: list[str], farm: Farm) -> None:
        self.result_file = farm.folder / "result.json"
        env = farm.env(WHARFINGER_SERVER=farm.server, WHARFINGER_RESULT=str(self.result_file))
        super().__init__(command, env, farm.folder / "job.log", Path(farm.folder), signal.SIGTERM, plain_status)

    def result(self) -> dict[str, Any] | None:
        """The result file; None if there is none."""
        return json.loads(self.result_file.read_text()) if self.result_file.exists() else None


class Cli:
    """The command line."""

    name = "command line"

    def start(self, farm: Farm) -> RunJob:
        """Runs the work with the options of a careful caller."""
        return RunJob([str(farm.program), "run", "--pool", "copies", "--retries", "2", "--", *farm.command().split()], farm)
