"""The cancel of GitHub's own runner, which act does not have: SIGINT, SIGTERM 7.5 s later, SIGKILL 2.5 s later, to the process of the step alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from farm import ROOT, Farm, until

ACTION = ROOT / "integrations/github/src"
UNTIL_SIGTERM = 7.5


def step(farm: Farm, script: str) -> tuple[subprocess.Popen[str], Path]:
    """Starts main or post of the action as the runner does. Returns the process and the file of its outputs."""
    files = {name: farm.folder / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")}
    for path in files.values():
        path.touch()
    env = farm.env(
        GITHUB_ACTIONS="true", GITHUB_REPOSITORY="acme/web", GITHUB_WORKFLOW="ci", GITHUB_JOB="test", GITHUB_ACTION="__run", GITHUB_RUN_ID="17",
        GITHUB_RUN_ATTEMPT="1", GITHUB_SERVER_URL="https://github.com", GITHUB_SHA=farm.git("rev-parse", "HEAD"), RUNNER_TEMP=str(farm.folder / "tmp"),
        INPUT_COMMAND=farm.command(), INPUT_POOL="copies", INPUT_SHELL="sh -e -c", INPUT_SERVER=farm.server, **{"INPUT_CANCEL-GRACE": "5s"},
        **{name: str(path) for name, path in files.items()},
    )  # fmt: skip
    if script == "post.js":
        env |= {f"STATE_{name}": value for name, value in values(files["GITHUB_STATE"]).items()}
    command = ["node", str(ACTION / script)]
    process = subprocess.Popen(command, env=env, cwd=farm.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    return process, files["GITHUB_OUTPUT"]


def values(path: Path) -> dict[str, str]:
    """The values in a file of the runner."""
    lines, found = path.read_text().splitlines(), {}
    while lines:
        name, end = lines.pop(0).split("<<")
        found[name] = "\n".join(iter(lambda: lines.pop(0), end))
    return found


@pytest.mark.parametrize("to_group", [False, True], ids=["by the runner", "at a terminal"])
def test_a_cancelled_step_releases_in_the_time_that_github_gives(farm: Farm, to_group: bool) -> None:
    """One SIGINT ends the command there and releases the lease as ABANDONED. The post step finds nothing to do."""
    farm.plan("wait")
    main, outputs = step(farm, "main.js")
    farm.first_attempt()
    begun = time.monotonic()
    (os.killpg if to_group else os.kill)(main.pid, signal.SIGINT)
    log, _ = main.communicate(timeout=60)
    assert main.returncode == 130, log
    assert time.monotonic() - begun < UNTIL_SIGTERM, log
    [lease] = farm.leases()
    assert (lease["state"], lease["outcome"]) == ("RELEASED", "ABANDONED"), log
    assert (values(outputs)["ended"], values(outputs)["fault"]) == ("cancelled", "NONE")
    until("the end of what ran on the host", lambda: not farm.on_hosts())
    post, _ = step(farm, "post.js")
    assert post.communicate(timeout=60)[0] == ""
    assert post.returncode == 0


def test_the_post_step_ends_a_program_that_outlived_its_step(farm: Farm) -> None:
    """The step alone is killed: the post step ends the program in good order."""
    farm.plan("wait")
    main, _ = step(farm, "main.js")
    farm.first_attempt()
    main.kill()
    main.wait()
    post, _ = step(farm, "post.js")
    log, _ = post.communicate(timeout=60)
    assert post.returncode == 0, log
    [lease] = farm.leases()
    assert (lease["state"], lease["outcome"]) == ("RELEASED", "ABANDONED"), log
    until("the end of what ran on the host", lambda: not farm.on_hosts())
