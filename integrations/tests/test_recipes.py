"""The Makefile of docs/adopt/recipes.md."""

from __future__ import annotations

import json
import os
import signal
import subprocess

from farm import Farm, until
from snippets import snippet


def start(farm: Farm) -> subprocess.Popen[bytes]:
    """Runs `make farm-test` in the repository, in a process group of its own, as a terminal does."""
    farm.commit_to_origin({"Makefile": snippet("recipes.md", "make", {}) + f"\ntest:\n\t{farm.command()}\n"})
    return subprocess.Popen(["make", "farm-test"], cwd=farm.folder / "origin", env=farm.env(WHARFINGER_SERVER=farm.server), stdin=subprocess.DEVNULL, start_new_session=True)


def test_make_runs_a_target_on_the_farm(farm: Farm) -> None:
    """The target ends as the work does, and the result file names the work."""
    farm.plan("succeed")
    assert start(farm).wait(timeout=60) == 0
    result = json.loads((farm.folder / "origin/result.json").read_text())
    assert (result["fault"], result["work"]) == ("NONE", f"unit@{farm.git('rev-parse', 'HEAD')}")


def test_control_c_ends_it_there_and_releases_the_lease(farm: Farm) -> None:
    """A terminal signals the whole group: make, and the program."""
    farm.plan("wait")
    make = start(farm)
    farm.first_attempt()
    os.killpg(make.pid, signal.SIGINT)
    make.wait(timeout=60)
    until("the release", lambda: farm.leases()[0]["outcome"] == "ABANDONED")
    until("the end of what ran on the host", lambda: not farm.on_hosts())
