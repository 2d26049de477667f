"""GitLab with a runner whose executor is `custom`: `wharfinger gitlab` in a double of the runner."""

from __future__ import annotations

import json
import signal
import sys
import tomllib
from pathlib import Path

import yaml
from products.gitlab_shell import as_list
from products.process import LastLineJob, plain_status
from farm import Farm
from snippets import snippet

TESTS = Path(__file__).resolve().parents[1]


class GitLab:
    """The runner and the job, as the page says."""

    name = "GitLab, custom executor"

    def start(self, farm: Farm) -> LastLineJob:
        """Starts the job `test` of the page, on a runner with its config.toml."""
        custom = tomllib.loads(snippet("gitlab.md", "runner", {"/usr/bin/wharfinger": str(farm.folder / "bin/wharfinger"), "60s": "10s"}))["runners"][0]["custom"]
        job = yaml.safe_load(snippet("gitlab.md", "custom", {"make test": farm.command()}))["test"]
        retry = {name: as_list(value) if name != "max" else value for name, value in job["retry"].items()}
        variables = {
            "CI": "true", "GITLAB_CI": "true", "CI_JOB_ID": "4711", "CI_JOB_NAME": "test", "CI_PROJECT_PATH": "acme/web",
            "CI_COMMIT_SHA": farm.git("rev-parse", "HEAD"), "CI_JOB_URL": "https://gitlab.example.org/acme/web/-/jobs/4711", "CI_SERVER_HOST": "gitlab.example.org",
        }  # fmt: skip
        document = {"custom": custom, "variables": variables, "repository": f"{farm.folder}/origin", "script": "\n".join(as_list(job["script"])), "retry": retry}
        path = farm.folder / "job.json"
        path.write_text(json.dumps(document))
        command = [sys.executable, str(TESTS / "doubles/gitlab_runner.py"), str(path)]
        env = farm.env(WHARFINGER_SERVER=farm.server)
        return LastLineJob(command, env, farm.folder / "job.log", farm.folder, signal.SIGTERM, plain_status)
