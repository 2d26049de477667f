"""GitLab with a runner whose executor is `shell`: the job's script is `wharfinger run`, in a double of the runner."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import yaml
from products.process import LastLineJob, plain_status
from farm import Farm
from snippets import snippet

TESTS = Path(__file__).resolve().parents[1]


def as_list(value: Any) -> list[Any]:
    """A keyword of .gitlab-ci.yml that takes one or several."""
    return value if isinstance(value, list) else [value]


class GitLabShell:
    """The job, as the page says."""

    name = "GitLab, shell executor"

    def start(self, farm: Farm) -> LastLineJob:
        """Starts the job `test` of the page."""
        put = {"make test": farm.command(), "https://wharfinger.example.org:7411": farm.server}
        job = yaml.safe_load(snippet("gitlab.md", "shell", put))["test"]
        retry = {name: as_list(value) if name != "max" else value for name, value in job["retry"].items()}
        variables = {
            "CI": "true", "GITLAB_CI": "true", "CI_JOB_ID": "4711", "CI_JOB_NAME": "test", "CI_PROJECT_PATH": "acme/web",
            "CI_COMMIT_SHA": farm.git("rev-parse", "HEAD"), "CI_JOB_URL": "https://gitlab.example.org/acme/web/-/jobs/4711", "CI_SERVER_HOST": "gitlab.example.org",
        }  # fmt: skip
        document = {"variables": variables | job["variables"], "script": as_list(job["script"]), "retry": retry}
        path = farm.folder / "job.json"
        path.write_text(json.dumps(document))
        command = [sys.executable, str(TESTS / "doubles/gitlab_shell.py"), str(path)]
        return LastLineJob(command, farm.env(), farm.folder / "job.log", farm.folder, signal.SIGTERM, plain_status)
