"""Fixtures of all tests of the clients."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from farm import Broker, Host, farm  # noqa: E402


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller has in its environment is no part of a test."""
    for name in list(os.environ):
        if name.startswith("WHARFINGER_") and name not in ("WHARFINGER_PROGRAM", "WHARFINGER_VENVS", "WHARFINGER_COUNTS"):
            monkeypatch.delenv(name)


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker of this test alone, with pool `here`."""
    with farm() as (broker, _):
        yield broker


@pytest.fixture
def two_hosts() -> Iterator[tuple[Broker, list[Host]]]:
    """A broker with two real sshd."""
    with farm(hosts=2) as made:
        yield made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """For test.sh: the number of tests that passed, then the names of the others."""
    counts = os.environ.get("WHARFINGER_COUNTS")
    if counts:
        bad = {report.nodeid for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, [])}
        passed = {report.nodeid for report in terminalreporter.stats.get("passed", [])} - bad
        Path(counts).write_text("\n".join([str(len(passed)), *sorted(bad)]) + "\n")
