"""Buildbot: a real master, whose latent worker runs on the leased host."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from products.clients import client_programs
from products.process import ProcessJob, plain_status
from farm import PATIENCE, TTL, Farm, free_port, until
from snippets import snippet

RESULTS = ("SUCCESS", "WARNINGS", "FAILURE", "SKIPPED", "EXCEPTION", "RETRY", "CANCELLED")


class MasterJob(ProcessJob):
    """A master with one builder, and the builds of its first request."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path, api: str) -> None:
        super().__init__(command, env, folder / "master.log", folder, signal.SIGTERM, plain_status)
        self.folder, self.api = folder, f"{api}api/v2"

    def call(self, path: str, document: object = None) -> Any:
        """Asks the master; None if it does not answer."""
        body = json.dumps(document).encode() if document is not None else None
        request = urllib.request.Request(f"{self.api}/{path}", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    def cancel(self) -> None:
        """The button of a build."""
        asked = {"jsonrpc": "2.0", "method": "stop", "id": 1, "params": {"reason": "cancelled"}}
        assert self.call("builds/1", asked) is not None, "the build is not stopped"

    def results(self) -> list[str]:
        """Results of the builds, once no request waits; empty before. A master that is dead has none."""
        if self.process.poll() is not None:
            return [plain_status(self.process.returncode)]
        waiting, builds = self.call("buildrequests?complete=false"), self.call("builds?order=buildid")
        if waiting is None or builds is None or waiting["buildrequests"] or not builds["builds"]:
            return []
        return [RESULTS[build["results"]] for build in builds["builds"]]

    def wait(self) -> str:
        """Waits for the last build, and stops the master."""
        results = until("the last build", self.results, PATIENCE + TTL, pause=0.3)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            super().wait()
        return ", ".join(results)

    def log(self) -> str:
        """Both logs of the master."""
        more = self.folder / "twistd.log"
        return super().log() + (more.read_text(errors="replace") if more.exists() else "")


class Buildbot:
    """The master, as the page says."""

    name = "Buildbot"
    slowest = 40.0

    def start(self, farm: Farm) -> MasterJob:
        """Starts a master, whose scheduler begins a build at once."""
        programs, folder = client_programs(), farm.folder / "master"
        workers, web = free_port("127.0.0.1"), free_port("127.0.0.1")
        command = ", ".join(f'"{word}"' for word in farm.command().split())
        put = {
            '"make", "test"': command, "https://wharfinger.example.org:7411": farm.server, "ci.example.org": "127.0.0.1",
            "/opt/buildbot/bin/python": str(programs / "python"), "tcp:9989": f"tcp:{workers}:interface=127.0.0.1", "tcp:8010": f"tcp:{web}:interface=127.0.0.1",
        }  # fmt: skip
        env = farm.env(GRPC_VERBOSITY="ERROR", PYTHONDONTWRITEBYTECODE="1")
        env["PATH"] = f"{programs}:{env['PATH']}"
        subprocess.run([programs / "buildbot", "create-master", "-r", folder], check=True, env=env, stdout=subprocess.DEVNULL, timeout=PATIENCE)
        (folder / "master.cfg").write_text(snippet("buildbot.md", "master", put))
        run = [str(programs / "twistd"), "--nodaemon", "--no_save", "--pidfile=", "-y", "buildbot.tac"]
        return MasterJob(run, env, folder, f"http://127.0.0.1:{web}/")
