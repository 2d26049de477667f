"""The pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
from farm import Broker, Host, program

TESTS = """
import os, pathlib, subprocess, pytest

HERE = pathlib.Path(__file__).parent

def breaks(leased):
    subprocess.run([os.environ["PROGRAM"], "break", leased.id, "--reason", "its host died"], check=True)
    # The news ends what runs there.
    leased.run("sleep", "1000")

def note(leased, name):
    with open(HERE / name, "a") as file:
        print(leased.id, file=file)

@pytest.mark.wharfinger("here")
def test_passes(leased):
    note(leased, "passes")
    assert leased.run("sh", "-c", "echo $WHARFINGER_LEASE", capture=True).stdout.decode().strip() == leased.id

@pytest.mark.wharfinger("here")
def test_fails(leased):
    note(leased, "fails")
    leased.run("sh", "-c", "exit 3")

@pytest.mark.wharfinger("here")
def test_breaks_once(leased):
    note(leased, "breaks")
    if len((HERE / "breaks").read_text().split()) == 1:
        breaks(leased)

@pytest.mark.wharfinger("here", retries=1)
def test_breaks_always(leased):
    note(leased, "always")
    breaks(leased)

@pytest.mark.wharfinger("here", retries=1)
def test_breaks_unheard(leased):
    note(leased, "unheard")
    if len((HERE / "unheard").read_text().split()) == 1:
        subprocess.run([os.environ["PROGRAM"], "break", leased.id, "--reason", "its host died"], check=True)
        assert leased.broken.wait(60)

@pytest.mark.wharfinger("nowhere")
def test_has_no_pool(leased):
    pass

@pytest.mark.wharfinger("here", share=True)
@pytest.mark.parametrize("n", range(3))
def test_shares(n, leased):
    note(leased, "shares")

def test_needs_nothing():
    pass
"""


def run(folder: Path, broker: Broker, *argv: str) -> tuple[int, str, dict[str, int]]:
    """Runs pytest: its code, its output, and its counts."""
    (folder / "test_it.py").write_text(TESTS)
    env = {**os.environ, "PROGRAM": program(), "WHARFINGER_SERVER": broker.address, "GRPC_VERBOSITY": "ERROR"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder), "--color=no", *argv]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    last = done.stdout.strip().splitlines()[-1]
    counts = {word.rstrip("s"): int(count) for count, word in re.findall(r"(\d+) ([a-z]+)", last) if word != "in"}
    return done.returncode, done.stdout + done.stderr, counts


def lines(folder: Path, name: str) -> list[str]:
    """The leases that a test of the run noted."""
    return (folder / name).read_text().split()


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_test_whose_lease_broke_is_run_again_and_not_called_failed(workers: list[str], broker: Broker, tmp_path: Path) -> None:
    code, output, counts = run(tmp_path, broker, "--junit-xml=junit.xml", *workers)
    assert code == 1, output
    # Failed: the one whose command failed. Errors: the one that lost each of its leases, and the one without a pool.
    assert counts == {"failed": 1, "passed": 7, "error": 2, "rerun": 3}, output
    assert len(lines(tmp_path, "passes")) == 1 and len(lines(tmp_path, "fails")) == 1
    for name in ("breaks", "always", "unheard"):
        assert len(set(lines(tmp_path, name))) == 2, output
    assert re.search(r"test_breaks_once: lease lse_\w+ is BROKEN: OPERATOR \(its host died\); whose fault: RESOURCE", output)
    assert "whose fault: UNDECIDED" in output
    assert "did not run to its end on a lease that held, after 2 runs" in output
    assert 'no pool "nowhere"' in output
    # Each worker has a lease of its own.
    assert len(set(lines(tmp_path, "shares"))) <= 1 + len(workers), output
    ends = {each["id"]: (each["state"], each["outcome"]) for each in broker.leases()}
    assert ends[lines(tmp_path, "passes")[0]] == ("RELEASED", "OK")
    assert ends[lines(tmp_path, "fails")[0]] == ("RELEASED", "FAILED")
    assert [ends[lease][0] for lease in lines(tmp_path, "breaks")] == ["BROKEN", "RELEASED"]
    assert all(state in ("RELEASED", "BROKEN") for state, _ in ends.values()), ends
    suite = xml.parse(tmp_path / "junit.xml").getroot().find("testsuite")
    assert suite is not None and (suite.get("failures"), suite.get("errors")) == ("1", "2"), suite.attrib


def test_the_host_of_a_test_dies_and_the_test_passes_on_the_other(two_hosts: tuple[Broker, list[Host]], tmp_path: Path) -> None:
    broker, hosts = two_hosts
    (tmp_path / "test_host.py").write_text(
        "import os, pathlib, signal, pytest\n"
        f"SSHD = {({host.port: host._sshd.pid for host in hosts if host._sshd is not None})!r}\n"
        "HERE = pathlib.Path(__file__).parent\n"
        "@pytest.mark.wharfinger('hosts')\n"
        "def test_it(leased):\n"
        "    first = not (HERE / 'killed').exists()\n"
        "    if first:\n"
        "        (HERE / 'killed').touch()\n"
        "        victim = SSHD[leased.message.access.ssh.port]\n"
        "        for pid in pathlib.Path(f'/proc/{victim}/task/{victim}/children').read_text().split():\n"
        "            os.kill(int(pid), signal.SIGKILL)\n"
        "        os.kill(victim, signal.SIGKILL)\n"
        "    leased.run('sh', '-c', 'exit 1' if first else 'exit 0')\n"
    )
    env = {**os.environ, "WHARFINGER_SERVER": broker.address}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_host.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and "1 passed, 1 rerun" in done.stdout, done.stdout + done.stderr
