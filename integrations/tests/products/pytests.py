"""pytest with the plugin of the Python package: the test has a lease."""

from __future__ import annotations

import re
import signal

from products.clients import client_programs
from products.process import ProcessJob, plain_status
from farm import Farm
from snippets import snippet


class PytestJob(ProcessJob):
    """A run of pytest."""

    def wait(self) -> str:
        """Its exit code, and the counts of its last line."""
        ended = super().wait()
        counts = re.findall(r"^=* ?((?:\d+ \w+(?:, )?)+|no tests ran) in [\d.]+s", self.log(), re.MULTILINE)
        return f"{ended}: {counts[-1]}" if counts else ended


class Pytest:
    """The test and the command, as the page says."""

    name = "pytest"

    def start(self, farm: Farm) -> PytestJob:
        """Runs the test of the page."""
        program, *arguments = farm.command().split()
        work = ", ".join(f'"{word}"' for word in (program, *arguments))
        (farm.folder / "test_farm.py").write_text(snippet("pytest.md", "test", {'"make", "test"': work}))
        script = snippet("pytest.md", "run", {"https://wharfinger.example.org:7411": farm.server})
        env = farm.env(GRPC_VERBOSITY="ERROR", WORK="unit@1")
        env["PATH"] = f"{client_programs()}:{env['PATH']}"
        return PytestJob(["sh", "-ec", script], env, farm.folder / "job.log", farm.folder, signal.SIGINT, plain_status)
