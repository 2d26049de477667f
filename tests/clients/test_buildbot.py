"""A real master and real workers of Buildbot, on leased hosts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from farm import PATIENCE, Broker, Host, Process, free_port, until

CONFIG = """
from buildbot.plugins import schedulers, steps, util
from wharfinger.buildbot import WharfingerLatentWorker
c = BuildmasterConfig = {{"workers": [], "schedulers": [], "builders": []}}
for name, (pool, command) in {builders!r}.items():
    c["workers"].append(WharfingerLatentWorker(f"on-{{name}}", server="{server}", pool=pool, ttl=8, wait=60,
        master_host="127.0.0.1", master_port={port}, python="{python}"))
    c["schedulers"].append(schedulers.Periodic(name=name, builderNames=[name], periodicBuildTimer=100000))
    step = steps.ShellCommand(command=["sh", "-c", command])
    c["builders"].append(util.BuilderConfig(name=name, workernames=[f"on-{{name}}"], factory=util.BuildFactory([step])))
c["protocols"] = {{"pb": {{"port": "tcp:{port}:interface=127.0.0.1"}}}}
c["db"] = {{"db_url": "sqlite:///state.sqlite"}}
c["buildbotNetUsageData"] = None
c["title"], c["buildbotURL"] = "a test", "http://localhost:8010/"
"""


class Master:
    """A master with builders, each with a pool and a command. A build of each begins at once."""

    def __init__(self, folder: Path, broker: Broker, builders: dict[str, tuple[str, str]]) -> None:
        self.folder = folder / "master"
        self.bin = Path(sys.executable).parent
        subprocess.run(
            [self.bin / "buildbot", "create-master", "-r", str(self.folder)], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE
        )
        self.port = free_port()
        text = CONFIG.format(server=broker.address, port=self.port, python=sys.executable, builders=builders)
        (self.folder / "master.cfg").write_text(text)
        self.up()

    def up(self) -> None:
        """Starts it."""
        self.process = Process(
            [str(self.bin / "twistd"), "--nodaemon", "--no_save", "--pidfile=", "-y", "buildbot.tac"],
            self.folder / "master.log",
            cwd=self.folder,
        )

    def builds(self, builder: str) -> list[dict[str, Any]]:
        """The builds of a builder: their results, and their properties."""
        with contextlib.suppress(sqlite3.Error), contextlib.closing(
            sqlite3.connect(f"file:{self.folder}/state.sqlite?mode=ro", uri=True)
        ) as db:
            found = []
            for id, results, over in db.execute("SELECT id, results, complete_at FROM builds ORDER BY id"):
                properties = db.execute("SELECT name, value FROM build_properties WHERE buildid = ?", (id,))
                build = {name: json.loads(value) for name, value in properties}
                if build.get("buildername") == builder:
                    found.append({**build, "results": results, "over": over is not None})
            return found
        return []

    def ended(self, builder: str, count: int) -> list[dict[str, Any]]:
        """Waits until so many builds of a builder are over."""

        def enough() -> Optional[list[dict[str, Any]]]:
            over = [build for build in self.builds(builder) if build["over"]]
            return over if len(over) >= count else None

        return until(enough, f"{count} builds of {builder}")

    def log(self) -> str:
        return "\n".join(path.read_text()[-8000:] for path in (self.folder / "twistd.log", self.folder / "master.log") if path.exists())


SUCCESS, FAILURE, EXCEPTION, RETRY = 0, 2, 4, 5


@pytest.fixture
def master(two_hosts: tuple[Broker, list[Host]], tmp_path: Path) -> Iterator[Master]:
    """A master with a builder for each case."""
    once = f"echo x >>{tmp_path}/tries; [ $(wc -l <{tmp_path}/tries) != 1 ] || exec sleep 1000"
    builders = {
        "host-dies": ("hosts", once),
        "fails": ("here", "exit 3"),
        "no-pool": ("nowhere", "true"),
        "goes-on": ("here", f"echo x >>{tmp_path}/runs; exec sleep 1000"),
    }
    made = Master(tmp_path, two_hosts[0], builders)
    yield made
    made.process.kill()
    # Shown where the test fails.
    print(f"---- the master ----\n{[made.builds(name) for name in builders]}\n{made.log()}")


def test_builds_end_as_their_leases_do(master: Master, two_hosts: tuple[Broker, list[Host]], tmp_path: Path) -> None:
    broker, hosts = two_hosts

    def active(pool: str) -> Optional[dict[str, Any]]:
        return next((each for each in broker.leases() if each["state"] == "ACTIVE" and each["pool"] == pool), None)

    # A host dies, and the worker on it falls silent: Buildbot says RETRY, and the build is green elsewhere.
    until((tmp_path / "tries").exists, "the first try")
    lease = until(lambda: active("hosts"), "the lease of the build")
    victim = next(host for host in hosts if str(host.port) == str(lease["access"]["port"]))
    victim.freeze()
    begun = time.monotonic()
    first, second = master.ended("host-dies", 2)
    took = time.monotonic() - begun
    print(f"green elsewhere after {took:.1f} s")
    assert (first["results"], second["results"]) == (RETRY, SUCCESS), (first, second)
    assert first["whose_fault"] == "RESOURCE" and first["wharfinger_lease"] == lease["id"]
    assert first["wharfinger_resource"] != second["wharfinger_resource"]
    # A few seconds on an idle machine. By Buildbot's own keepalive it is an hour.
    assert took < 30
    until(lambda: broker.get(second["wharfinger_lease"])["state"] == "RELEASED", "the release")
    assert broker.get(second["wharfinger_lease"])["outcome"] == "OK"

    # A command fails: no retry, and whose fault it is.
    (build,) = master.ended("fails", 1)
    assert build["results"] == FAILURE, build
    until(lambda: master.builds("fails")[0].get("whose_fault") == "UNDECIDED", "whose fault it was")
    failed = broker.get(build["wharfinger_lease"])
    assert (failed["state"], failed["outcome"]) == ("RELEASED", "FAILED"), failed
    assert failed["holder"].startswith("http://localhost:8010/"), failed

    # A mistake in the request is not tried for ever.
    assert [build["results"] for build in master.ended("no-pool", 1)] == [EXCEPTION]

    # The master is killed: its lease ends with the TTL.
    until((tmp_path / "runs").exists, "the build")
    lease = until(lambda: active("here"), "the lease of the build")
    master.process.kill(signal.SIGKILL)
    until(lambda: broker.get(lease["id"])["state"] == "EXPIRED", "the end of the TTL")

    # It comes back, makes the build again, and is stopped: the lease is released.
    master.up()
    lease = until(lambda: active("here"), "the lease of the next build")
    until(lambda: (tmp_path / "runs").read_text().count("x") == 2, "the next build")
    os.kill(master.process.pid, signal.SIGTERM)
    master.process.popen.wait(PATIENCE)
    found = broker.get(lease["id"])
    assert (found["state"], found["outcome"]) == ("RELEASED", "ABANDONED"), found
