"""Fixtures of the cases, and the tally for ./test.sh.

WHARFINGER_TALLY names a folder. At the end it holds `counts` (passed, failed, skipped), and one name a line in `failed`, `flaky` (failed, then
passed) and `skipped`. WHARFINGER_WITHOUT has the same meaning as for the tests in Rust.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm import Farm


@pytest.fixture
def farm() -> Iterator[Farm]:
    """A farm of the test's own."""
    left_out = {"root", "sshd"} & set(os.environ.get("WHARFINGER_WITHOUT", "").split(","))
    if left_out:
        pytest.skip(f"without {', '.join(sorted(left_out))}")
    with tempfile.TemporaryDirectory(prefix="wharfinger-ci-") as folder:
        made = Farm(Path(folder) / "farm")
        try:
            yield made
        finally:
            made.close()


def pytest_terminal_summary(terminalreporter) -> None:
    """Writes the tally."""
    folder = os.environ.get("WHARFINGER_TALLY")
    if not folder or hasattr(terminalreporter.config, "workerinput"):
        return
    ended = {
        kind: {report.nodeid for report in terminalreporter.stats.get(kind, []) if hasattr(report, "nodeid")}
        for kind in ("passed", "failed", "error", "skipped", "rerun")
    }
    failed = ended["failed"] | ended["error"]
    lists = {"failed": failed, "flaky": ended["rerun"] - failed, "skipped": ended["skipped"]}
    for name, ids in lists.items():
        Path(folder, name).write_text("".join(f"{one}\n" for one in sorted(ids)))
    Path(folder, "counts").write_text(f"{len(ended['passed'] - failed)} {len(failed)} {len(ended['skipped'])}\n")
