"""The wheel in empty environments: the oldest and the newest protobuf and gRPC that it says it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from farm import ROOT, Broker

PACKAGE = ROOT / "clients" / "python"

SCRIPT = """
import asyncio, sys, wharfinger, wharfinger.sync, google.protobuf, grpc
from wharfinger.v1 import admin_pb2, lease_pb2, trust_pb2, types_pb2

async def main():
    async with wharfinger.Client(sys.argv[1]) as client, client.lease("here") as lease:
        await lease.run("true")
asyncio.run(main())
with wharfinger.sync.Client(sys.argv[1]) as client, client.lease("here") as lease:
    lease.run("true")
print(google.protobuf.__version__, grpc.__version__)
"""


@pytest.mark.parametrize("venv", ["old", "new"])
def test_a_life_in_an_empty_environment(venv: str, broker: Broker) -> None:
    folder = os.environ.get("WHARFINGER_VENVS")
    if folder is None:
        pytest.fail("WHARFINGER_VENVS names no folder: run this by ./test.sh clients")
    python = Path(folder) / venv / "bin" / "python"
    # -W error: no warning of an import is put up with.
    done = subprocess.run(
        [python, "-W", "error", "-c", SCRIPT, broker.address], capture_output=True, text=True, timeout=60, cwd=broker.folder
    )
    assert done.returncode == 0, done.stderr
    protobuf, grpc = done.stdout.split()
    assert (protobuf.split(".")[0], grpc) == (("6", "1.76.0") if venv == "old" else ("7", grpc)), done.stdout


def test_types_are_strict() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", PACKAGE / "pyproject.toml", "--cache-dir", os.devnull, "-p", "wharfinger"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_user_with_types_sees_them(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(
        "import wharfinger\n"
        "async def work(client: wharfinger.Client) -> str:\n"
        "    async with client.lease('here') as lease:\n"
        "        done = await lease.run('true', capture=True)\n"
        "        reveal_type(done.stdout)\n"
        "        reveal_type(lease.message.fencing_token)\n"
        "        return lease.path\n"
        "async def wrong(client: wharfinger.Client) -> None:\n"
        "    client.lease(pool=3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "use.py"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert 'Revealed type is "bytes"' in done.stdout or 'Revealed type is "builtins.bytes"' in done.stdout, done.stdout
    assert 'Revealed type is "int"' in done.stdout or 'Revealed type is "builtins.int"' in done.stdout, done.stdout
    assert "Found 1 error" in done.stdout and "use.py:9" in done.stdout, done.stdout
