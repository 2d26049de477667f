"""Jenkins with the step `lock` at our server: a double of the plugin and of the step `sh` in it. Groovy is not run."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

from products.process import LastLineJob, plain_status
from farm import Farm, free_port, listens, until
from snippets import snippet

TESTS = Path(__file__).resolve().parents[1]


def open_port(farm: Farm) -> str:
    """Gives the farm's broker the port of the page, and returns its URL."""
    port = free_port("127.0.0.1")
    farm.config.write_text(snippet("jenkins.md", "port", {"127.0.0.1:7413": f"127.0.0.1:{port}"}) + farm.config.read_text())
    farm.restart_broker()
    until("the port", lambda: listens("127.0.0.1", port))
    return f"http://127.0.0.1:{port}/"


def arguments(text: str) -> dict[str, Any]:
    """What the step `lock` of a pipeline asks for."""
    [found] = re.findall(r"lock\((.*?)\) \{", text)
    pairs = dict(re.findall(r"(\w+): ('[^']*'|\d+)", found))
    assert pairs.pop("serverId") == "'wharfinger'"
    return {name: value.strip("'") if value.startswith("'") else int(value) for name, value in pairs.items()}


class JenkinsLock:
    """The loop with `lock`, as the page says."""

    name = "Jenkins, step lock"
    ttl = 60

    def start(self, farm: Farm) -> LastLineJob:
        """Starts the build."""
        text = snippet("jenkins.md", "lock-again", {"make test": farm.command()})
        [script] = re.findall(r"script: '(.*)'\)", text)
        [(first, attempts, again)] = re.findall(r"def code = (\d+)\s+for \(int attempt = 0; attempt < (\d+) && code == (\d+);", text)
        assert first == again
        document = {
            "url": open_port(farm), "password": (farm.folder / "token-ci").read_text().strip(), "request": arguments(text), "script": script,
            "attempts": int(attempts), "again": int(again), "folder": str(farm.folder / "agent"),
        }  # fmt: skip
        path = farm.folder / "build.json"
        path.write_text(json.dumps(document))
        command = [sys.executable, str(TESTS / "doubles/jenkins_lock.py"), str(path)]
        return LastLineJob(command, farm.env(WHARFINGER_SERVER=farm.server), farm.folder / "job.log", farm.folder, signal.SIGTERM, plain_status)
