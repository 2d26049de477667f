"""`run --fetch` while its host dies, and after a fetch that was killed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from farm import Farm, until


def start(farm: Farm, out: Path) -> subprocess.Popen[bytes]:
    """Starts work whose first attempt leaves a file that takes hours to fetch, and whose others leave a small one."""
    first = farm.control / "first"
    script = f"if [ -e {first} ]; then echo ok >big; else echo $SSH_CONNECTION >{first}; truncate -s 2T big; fi"
    command = [farm.program, "run", "--pool", "copies", "--retries", "2", "--ttl", "10s", "--fetch", "big", "--fetch-to", out, "--fetch-max", "3TiB"]
    with (farm.folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--", "sh", "-c", script], env=farm.env(WHARFINGER_SERVER=farm.server), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def under_way(out: Path) -> list[Path]:
    """What a fetch has received of its file so far."""
    return [path for path in out.glob(".wharfinger-*/0") if path.stat().st_size > 0]


def test_a_host_dies_during_the_fetch_and_the_work_begins_again(farm: Farm) -> None:
    """Nothing of the first host's file stays; the file is the second attempt's."""
    out = farm.folder / "out"
    run = start(farm, out)
    until("the fetch", lambda: under_way(out), pause=0.01)
    # SSH_CONNECTION: address and port of the client, then of the host.
    address = (farm.control / "first").read_text().split()[2]
    victim = next(host for host in farm.hosts.values() if host.address == address)
    victim.kill()
    assert run.wait(timeout=60) == 0, (farm.folder / "run.log").read_text()
    assert [path.name for path in out.iterdir()] == ["big"]
    assert (out / "big").read_text() == "ok\n"
    first, second = farm.leases()
    assert (first["state"], second["state"], second["outcome"]) == ("BROKEN", "RELEASED", "OK")


def test_a_killed_fetch_leaves_a_folder_that_the_next_one_removes(farm: Farm) -> None:
    """No process can clean up after its own SIGKILL."""
    out = farm.folder / "out"
    run = start(farm, out)
    [left] = until("the fetch", lambda: under_way(out), pause=0.01)
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=60)
    assert left.exists()
    again = start(farm, out)
    assert again.wait(timeout=60) == 0, (farm.folder / "run.log").read_text()
    assert [path.name for path in out.iterdir()] == ["big"]
    assert (out / "big").read_text() == "ok\n"
