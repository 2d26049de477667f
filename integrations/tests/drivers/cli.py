"""No CI product: `wharfinger run`, as make, cron or a script starts it."""

from __future__ import annotations

import signal
from pathlib import Path

from drivers.process import ProcessJob, plain_status
from farm import Farm


class Cli:
    """The command line."""

    name = "command line"

    def start(self, farm: Farm) -> ProcessJob:
        """Runs the work with the options of a careful caller."""
        command = [str(farm.program), "run", "--pool", "copies", "--retries", "2", "--", *farm.command().split()]
        env = farm.env(WHARFINGER_SERVER=farm.server)
        return ProcessJob(command, env, farm.folder / "job.log", Path(farm.folder), signal.SIGTERM, plain_status)
